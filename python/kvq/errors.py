# SPDX-License-Identifier: Apache-2.0
"""The exceptions of kvq: one class per error code of the C API. Each message says what, which value, what to do.

Where Python has a class of its own for the situation, ours derives from it too.
"""


class Error(Exception):
    """Base of all exceptions that kvq raises on purpose."""


class InvalidArgument(Error, ValueError):
    """The call is wrong as it stands: change the argument."""


class Unsupported(Error, NotImplementedError):
    """A legal wish that this build or machine cannot fulfil."""


class ResourceExhausted(Error):
    """Something is full: free or grow it, then retry."""


class PoolFull(ResourceExhausted):
    """The page pool or the sequences of a cache are used up."""


class FailedPrecondition(Error, RuntimeError):
    """The object is in another state: call something else first."""


class BadValue(Error, ValueError):
    """NaN, infinity or a value beyond the range of f16 in K or V."""


class Corrupt(Error):
    """Stored data failed its checksum or version."""


class PermissionDenied(Error, PermissionError):
    """A file or folder cannot or must not be used."""


class InternalError(Error, RuntimeError):
    """A mistake of kvq: please report it."""
