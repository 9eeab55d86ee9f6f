# SPDX-License-Identifier: Apache-2.0
"""The caches that can be compared, each named by a short text: whatever KVQCache takes, and transformers' own caches.

`parse_cache` is the one place that reads such a text. It imports neither torch nor transformers; making a cache does.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvq import lowlevel
from kvq.errors import Error, InvalidArgument, Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from transformers.cache_utils import Cache

    from kvq.evaluate.speed import States

DYNAMIC = "dynamic"
PRESETS = ("kivi-2", "kivi-4", "kvq-8", "kvq-4", "kvq-k4v2", "kvq-3", "kvq-2")
# Bits that each of transformers' quantized caches takes, and the module that it needs.
QUANTIZED = {"quanto": ((2, 4), "optimum.quanto"), "hqq": ((1, 2, 3, 4, 8), "hqq")}
RESIDUAL = 128  # tokens that transformers' quantized caches keep before they quantize everything again


def baselines() -> list[str]:
    """Names of transformers' own caches, whether what they need is installed or not."""
    return [DYNAMIC, *(f"{backend}-{bits}" for backend, (widths, _) in QUANTIZED.items() for bits in widths)]


@dataclass(frozen=True)
class CacheKind:
    """One way of keeping K and V. `text` is what the user wrote; `identity` is what it means: two texts of one
    identity give the same cache. `accuracy` is the class of kvq's arithmetic; None: it is not kvq's."""

    text: str
    identity: str
    accuracy: str | None = field(default=None, kw_only=True)

    @property
    def stored(self) -> str:
        """What it means for what is stored, on which the accuracy class has no influence."""
        return self.identity.removesuffix(_suffix(self.accuracy))

    def make(self, config: PreTrainedConfig) -> Cache:
        """A new, empty cache."""
        raise NotImplementedError

    def fill(self, config: PreTrainedConfig, states: States) -> Cache:
        """A new cache that holds K and V which another cache of this model computed."""
        cache = self.make(config)
        for index, (k, v) in enumerate(states):
            cache.update(k.contiguous(), v.contiguous(), index)
        return cache

    def pieces(self, tokens: int) -> list[int]:
        """Lengths of the pieces in which a text is to be fed so that each query sees what decoding token by token
        would have shown it."""
        return [tokens]


@dataclass(frozen=True)
class Dynamic(CacheKind):
    """transformers' DynamicCache: full precision."""

    def make(self, config: PreTrainedConfig) -> Cache:
        from transformers import DynamicCache

        return DynamicCache(config=config)


@dataclass(frozen=True)
class Quantized(CacheKind):
    """transformers' QuantizedCache, with its own default groups and residual length."""

    backend: str
    bits: int

    def make(self, config: PreTrainedConfig) -> Cache:
        from transformers import QuantizedCache

        return QuantizedCache(self.backend, config, nbits=self.bits, residual_length=RESIDUAL)

    def pieces(self, tokens: int) -> list[int]:
        """The first call is quantized at once, whatever its length; after that everything is, whenever RESIDUAL tokens
        have come: inside such a run of tokens decoding sees the run in full precision, as one call does."""
        rest = tokens - 1
        return [1] + [RESIDUAL] * (rest // RESIDUAL) + ([rest % RESIDUAL] if rest % RESIDUAL else [])


@dataclass(frozen=True)
class Packed(CacheKind):
    """kvq's KVQCache. `options` are its keyword arguments. `text` may say more than the format, so that the same
    format with other options has another name."""

    format: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def make(self, config: PreTrainedConfig) -> Cache:
        from kvq.hf import KVQCache

        unknown = set(self.options) - set(inspect.signature(KVQCache).parameters)
        if unknown:
            raise Unsupported(f"KVQCache of this version has no option {', '.join(sorted(unknown))}: leave it out")
        return KVQCache(config, self.format, **self.options)

    def fill(self, config: PreTrainedConfig, states: States) -> Cache:
        cache = self.make(config)
        cache.load(states)
        return cache


def parse_cache(text: str, options: dict[str, Any] | None = None) -> CacheKind:
    """What a cache text names. `options` are keyword arguments of KVQCache that take part in the meaning."""
    if text == DYNAMIC:
        return Dynamic(text, DYNAMIC)
    backend, _, bits = text.partition("-")
    if backend in QUANTIZED and bits.isdigit():
        return _quantized(text, backend, int(bits))
    options = {**(options or {})}
    options["accuracy"] = lowlevel.check_accuracy(options.get("accuracy"))
    accuracy = options["accuracy"]
    meaning = {name: value for name, value in options.items() if name not in ("accuracy", "context", "threads")}
    suffix = "".join(f" {name}={value}" for name, value in sorted(meaning.items()))
    return Packed(text, _packed_identity(text) + suffix + _suffix(accuracy), text, options, accuracy=accuracy)


def _suffix(accuracy: str | None) -> str:
    return f" accuracy={accuracy}"


def in_classes(text: str, classes: Sequence[str], options: dict[str, Any] | None = None) -> list[CacheKind]:
    """A cache text in several accuracy classes, each named after its class; once where it has none."""
    kinds = [parse_cache(text, {**(options or {}), "accuracy": accuracy}) for accuracy in classes]
    if kinds[0].accuracy is None:
        return kinds[:1]
    return [replace(kind, text=f"{kind.text} {kind.accuracy}") if len(kinds) > 1 else kind for kind in kinds]


def _quantized(text: str, backend: str, bits: int) -> CacheKind:
    widths, module = QUANTIZED[backend]
    if bits not in widths:
        raise InvalidArgument(f"cache '{text}': {backend} has {_or(list(map(str, widths)))} bits")
    try:
        installed = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        package = "optimum-quanto" if backend == "quanto" else backend
        raise Unsupported(f"cache '{text}' needs the Python package {package}, which is not installed: pip install it")
    return Quantized(text, f"transformers QuantizedCache {backend} {bits} bits", backend, bits)


def _packed_identity(text: str) -> str:
    """Canonical text; of a file that lists formats by layer, its contents."""
    file = Path(text)
    if not file.exists():
        return _canonical(text)
    if file.is_dir():
        raise InvalidArgument(f"cache '{text}' is a folder: give a cache text, or a file with a format for each layer")
    return f"layers of sha256:{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"


def _canonical(text: str) -> str:
    try:
        return lowlevel.format_canonical(text)
    except Error as error:
        near = difflib.get_close_matches(text, [*PRESETS, *baselines()], n=3, cutoff=0.5)
        if not near or "did you mean" in str(error):
            raise
        raise type(error)(f"{error}; did you mean {_or(near)}?") from None


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
