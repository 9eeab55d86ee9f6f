# SPDX-License-Identifier: Apache-2.0
"""Quantizing and appending, in bytes of input a second."""
import functools

import common
from cpu.setting import D, KV_HEADS
from cpu.steps import Steps

PAGE = 128
SLOTS = 4    # tails that a launch reads: with 8 heads each 32 pages
REPEAT = 16  # launches or steps of a turn
PAIRS = ("k8c128-v8c128", "k8t128-v8t128", "k4c128-v4c128", "k4t128-v4t128", "k4c32-v4t32", "k2c128-v2c128",
         "k2t128-v2t128")
TYPES = {"float16": "f16", "float32": "f32"}
# kvq_quantize_item of kernel_abi.h
ITEM = [(name, "<i4") for name in ("block", "kv_head", "tail_slot", "position", "count", "reserved")]


def kernel_of(setting, text, op, dtype):
    """The library's own kernel for a page of this format: asked for by the text under which it holds it."""
    from kvq import lowlevel

    context = setting.context(1)
    cache = lowlevel.Cache(context, text, layers=1, q_heads=KV_HEADS, kv_heads=KV_HEADS, dk=D, dv=D, dtype=dtype,
                           blocks=1, page_tokens=PAGE)
    cache.prepare()
    request = next(kernel["name"] for kernel in context.kernels()
                   if kernel["name"].startswith(f"{op}:{text}:") and f":p{PAGE}:dk{D}:" in kernel["name"]
                   and f":{TYPES[dtype]}:" in kernel["name"])
    return lowlevel.open_kernel(context, request)


def aligned(shape, dtype):
    """An array that begins at a line of the cache, as a cache's memory does (kvq.h); numpy's own begin anywhere."""
    import numpy

    size = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
    memory = numpy.zeros(size + 64, numpy.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size].view(dtype).reshape(shape)


def launcher(setting, text, op, dtype):
    """A turn that quantizes the 32 pages REPEAT times; how many times."""
    import numpy
    from kvq import lowlevel

    kernel = kernel_of(setting, text, op, dtype)
    places = [divmod(index, KV_HEADS) for index in range(SLOTS * KV_HEADS)]
    items = numpy.array([(slot, head, slot, 0, PAGE, 0) for slot, head in places] * REPEAT, ITEM)
    size = lowlevel.format_page_bytes(text, D, D, PAGE)
    pages = aligned((KV_HEADS, SLOTS, size), numpy.uint8)  # one run of a cache
    tail = aligned((SLOTS, KV_HEADS, PAGE, D), dtype)
    tail[:] = numpy.random.default_rng(1).standard_normal(tail.shape)
    arguments = [items.view(numpy.uint8), pages, size, SLOTS * size, tail, PAGE, PAGE, KV_HEADS]

    def work():
        kernel.launch(arguments, grid=(len(items), 1, 1))
        return REPEAT

    return work


def sides():
    """(name of the record, format, op) of each side, axis, width and group."""
    found = {}
    for text in PAIRS:
        k, v = text.split("-")
        found.setdefault(f"quantize/{k}", (text, "quantize_k"))
        found.setdefault(f"quantize/{v}", (text, "quantize_v"))
    return found


def add_rates(setting, times, size, **case):
    """GB/s of `size` bytes of input: {name: times}."""
    for name, values in times.items():
        rate, spread = common.median_and_spread([size / ms / 1e6 for ms in values])
        microseconds = 1e3 * common.median_and_spread(values)[0]
        setting.records.add(name, rate, "GB/s", spread, us=microseconds, bytes=size, **case)


def quantize(setting):
    """quantize/<side>/<type>: the kernels alone. append/<format>/<type>/<tokens>: steps that append without attending.
    """
    for dtype, element in (("float16", 2), ("float32", 4)):
        contenders = {f"{name}/{dtype}": launcher(setting, text, op, dtype) for name, (text, op) in sides().items()}
        add_rates(setting, common.interleave(contenders, setting.rounds), SLOTS * KV_HEADS * PAGE * D * element,
                  dtype=dtype, pages=SLOTS * KV_HEADS, threads=1)
        for tokens in (1, PAGE):
            contenders = {f"append/{text}/{dtype}/{tokens}": functools.partial(append, Steps(
                setting.context(1), text, [PAGE * 2], rotate=0, new=tokens, dtype=dtype)) for text in PAIRS}
            add_rates(setting, common.interleave(contenders, setting.rounds), 2 * KV_HEADS * tokens * D * element,
                      dtype=dtype, tokens=tokens, threads=1)


def append(steps):
    """Steps of appending that are taken back, so that each meets the same cache."""
    for _ in range(REPEAT):
        with steps.cache.plan(steps.sequences, [steps.new]) as step:
            step.append(0, steps.k, steps.v)
            step.abort()
    return REPEAT
