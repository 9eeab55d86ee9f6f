# SPDX-License-Identifier: Apache-2.0
"""What all parts of the suite share: sizes, contexts, the accuracy classes, the stream rate."""
import dataclasses
import functools
import mmap

import common
from cpu import native

Q_HEADS, KV_HEADS, D = 32, 8, 128
FORMATS = ("k8t128-v8t128", "k4c128-v4t128", "k4c32-v4t32", "k2c128-v2t128", "k4c128-v2t128")
FOUR_BITS, EIGHT_BITS = "k4c128-v4t128", "k8t128-v8t128"   # what stands for kvq where two formats have to do
AVX2 = "x86-64-v3"
MOST_ROUNDS = 80
MAIN_CLASS = "normal"  # what stands for kvq where one class has to do


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a mode measures. Tokens are those of a sequence before the step."""

    rounds: int
    lengths: tuple          # of the attend part
    peers: int              # tokens beside the peers
    shapes: int             # tokens for head sizes, ratios, query lengths, torch
    window: tuple           # (attention window, tokens of the long sequence)
    prefill: tuple          # (new tokens, tokens before them)
    ragged: tuple           # (shortest, longest) of eight sequences
    stream_bytes: int
    threads: tuple = (1, 2)


FULL = Size(9, (4096, 32768, 131072), 32768, 32768, (1024, 131072), (512, 8192), (2048, 32768), 2**30)
QUICK = Size(4, (1024, 4096), 2048, 2048, (1024, 8192), (64, 1024), (256, 2048), 2**28)


class Setting:
    """One run of the suite."""

    def __init__(self, size, level=None, rotate_mib=None, rounds=None, build_ggml=True, classes=None):
        self.size = size
        self.rounds = rounds or size.rounds
        self.level = level
        self.rotate = common.rotation_bytes(rotate_mib)
        self.build_ggml = build_ggml
        self.records = common.Records("cpu")
        self.missing = {}   # peer: why it was not measured
        from kvq import lowlevel

        self.classes = [name for name in lowlevel.ACCURACY_CLASSES if name in (classes or lowlevel.ACCURACY_CLASSES)]

    @functools.lru_cache(maxsize=8)
    def context(self, threads, level=None):
        from kvq import lowlevel

        return lowlevel.Context("cpu", level=level or self.level, threads=threads)

    @functools.cached_property
    def stream(self):
        return StreamRate(self.size.stream_bytes)

    def best_loop(self, threads):
        """The loop with the highest rate in the stream part, or in a short trial where that part was left out."""
        if threads not in self.stream.best:
            self.stream.measure(threads, rounds=3)
        return self.stream.best[threads]

    def stream_contender(self, threads):
        """A turn of the best read loop, whose unit is the whole buffer."""
        loop = self.best_loop(threads)
        return lambda: self.stream.read(loop, threads)


class StreamRate:
    """The read loops over one buffer that was written once, so that its memory is there."""

    def __init__(self, size):
        self.loops = native.Stream()
        self.bytes = size
        self.memory = mmap.mmap(-1, size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self.memory.madvise(mmap.MADV_HUGEPAGE)
        import numpy

        array = numpy.frombuffer(self.memory, numpy.uint8)
        array[:] = 1
        self.address = array.ctypes.data
        self.best = {}   # threads: name of the fastest loop

    def read(self, loop, threads):
        self.loops.read(loop, self.address, self.bytes, threads)
        return 1

    def measure(self, threads, rounds):
        """{loop: milliseconds of each round}; notes the best."""
        contenders = {loop: functools.partial(self.read, loop, threads) for loop in self.loops.loops}
        times = common.interleave(contenders, rounds)
        self.best[threads] = min(times, key=lambda loop: common.median_and_spread(times[loop])[0])
        return times
