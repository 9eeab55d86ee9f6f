# SPDX-License-Identifier: Apache-2.0
"""KIVI's package name; `import kvq.compat.shim` makes it importable as `models`."""
