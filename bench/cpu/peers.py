# SPDX-License-Identifier: Apache-2.0
"""One step of attention of what a user has today, in turns with kvq's: ggml, PyTorch, transformers. One thread."""
import dataclasses
from collections.abc import Callable

import common
from cpu import native
from cpu.attend import STREAM
from cpu.setting import AVX2, D, EIGHT_BITS, FOUR_BITS, KV_HEADS, MAIN_CLASS, Q_HEADS
from cpu.steps import Steps, add_step

SCALE = D**-0.5
GGML_TYPES = {"f16": 16, "q8_0": 8, "q4_0": 4}
QUANTO_BITS = (8, 4, 2)
TORCH_TYPES = {"float32": 32, "bfloat16": 16}
AGREES = 0.3   # relative error below which ggml did the work: 0.03 at f16 and 32k tokens, whose V it sums up in f16


@dataclasses.dataclass
class Contender:
    run: Callable      # a turn; gives the number of steps
    bytes: int         # of K and V that a step must read
    bits: int          # of an element of K and V, scales not counted
    error: float | None = None   # of its result, where it was looked at


def dense_inputs(tokens):
    """q [1, Hq, 1, D], K and V [1, Hkv, tokens, D] in float32."""
    import torch

    generator = torch.Generator().manual_seed(tokens)
    q = torch.randn(1, Q_HEADS, 1, D, generator=generator)
    return q, *(torch.randn(1, KV_HEADS, tokens, D, generator=generator) for _ in "kv")


def grouped(q):
    """Query heads of one KV head as rows of one matrix: the way that reads K and V once."""
    return q.view(1, KV_HEADS, Q_HEADS // KV_HEADS, D)


def sdpa(q, k, v):
    import torch

    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=SCALE)


def matmul_softmax(q, k, v):
    return (q @ k.transpose(-1, -2) * SCALE).softmax(-1) @ v


def dense(setting, q, k, v, dtype, attend):
    """A route of PyTorch over as many copies as exceed the rotation."""
    import torch

    kind = getattr(torch, dtype)
    size = 2 * k.numel() * kind.itemsize
    pairs = [(k.to(kind, copy=True), v.to(kind, copy=True)) for _ in range(common.copies_for(setting.rotate, size))]
    q = grouped(q.to(kind))

    def run():
        for keys, values in pairs:
            attend(q, keys, values)
        return len(pairs)

    return Contender(run, size, 8 * kind.itemsize)


def quanto(setting, q, k, v, bits):
    """QuantizedCache's layer: its update, which dequantizes everything, and SDPA after it. Its requantization, every
    128 tokens, stays outside the turns."""
    from transformers.cache_utils import QuantoQuantizedLayer

    def filled():
        layer = QuantoQuantizedLayer(nbits=bits, axis_key=0, axis_value=0, q_group_size=128, residual_length=128)
        layer.update(k, v)
        return layer

    try:
        first = filled()
    except (ValueError, ImportError) as error:
        raise native.Missing(f"transformers refuses it: {str(error).splitlines()[0]}") from error
    # A step also writes and reads dense K and V in float32: they are part of what must exceed the caches.
    size = 2 * k.numel() * (bits + 2 * 32 / 128) // 8   # scale and shift of a group are float32
    layers = [first] + [filled() for _ in range(common.copies_for(setting.rotate, int(size) + 8 * k.numel()) - 1)]
    new_k, new_v = k[:, :, :1], v[:, :, :1]

    def run():
        for layer in layers:
            keys, values = layer.update(new_k, new_v)
            sdpa(grouped(q), keys, values)
        return len(layers)

    return Contender(run, int(size), bits)


def ggml(setting, q, k, v, type_name):
    """Mainline ggml's flash attention, whose result is looked at once."""
    if not setting.build_ggml and not native.ggml_library().exists():
        raise native.Missing("it has not been built: run ./dev bench cpu --only peers without --quick once")
    bits = GGML_TYPES[type_name]
    size = 2 * k.numel() * bits // 8
    peer = native.Ggml(type_name, q[0, :, 0].numpy(), k[0].numpy(), v[0].numpy(),
                       common.copies_for(setting.rotate, size), threads=1)
    peer.run()
    wanted = sdpa(grouped(q), k, v).view(Q_HEADS, D).numpy()
    error = float(((peer.result() - wanted) ** 2).mean() ** 0.5 / (wanted**2).mean() ** 0.5)
    if not error <= AGREES:
        raise native.Missing(f"its result is off by {error:.2g} of the right one: it is no baseline")
    return Contender(peer.run, peer.bytes, bits, error)


def versions():
    """Of what the peers come from; PyTorch and transformers are among the machine's."""
    from kvq.evaluate import machine

    return {native.GGML_PACKAGE: native.GGML_VERSION, **machine.versions("optimum-quanto")}


def wanted_peers(setting, inputs):
    """{peer: callable that makes its contender}."""
    made = {}
    for type_name in GGML_TYPES:
        made[f"ggml-{type_name}"] = lambda kind=type_name: ggml(setting, *inputs, kind)
    for route in (sdpa, matmul_softmax):
        for dtype in TORCH_TYPES:
            name = f"torch-{route.__name__.replace('_', '+')}-{dtype}"
            made[name] = lambda route=route, dtype=dtype: dense(setting, *inputs, dtype, route)
    for bits in QUANTO_BITS:
        made[f"quantizedcache-int{bits}"] = lambda bits=bits: quanto(setting, *inputs, bits)
    return made


def kvq_contenders(setting, tokens):
    """{record name: (Steps, what the record says)}: the formats beside which peers stand, bf16, and forced to AVX2."""
    def case(text, name, dtype="float32", level=None):
        step = Steps(setting.context(1, level), text, [tokens], rotate=setting.rotate, dtype=dtype,
                     accuracy=name)
        suffix = "".join(f"/{part}" for part in (dtype if dtype != "float32" else None, level) if part)
        about = {"format": text, "accuracy": name, "dtype": dtype, "level": level or setting.context(1).level}
        return f"attend/{text}/{name}/{tokens}/1{suffix}", (step, about)

    found = [case(text, name) for text in (EIGHT_BITS, FOUR_BITS) for name in setting.classes]
    found.append(case(FOUR_BITS, MAIN_CLASS, dtype="bfloat16"))
    native_level = setting.context(1)
    if native_level.level != AVX2 and AVX2 in native_level.levels:
        found += [case(text, MAIN_CLASS, level=AVX2) for text in (EIGHT_BITS, FOUR_BITS)]
    return dict(found)


def peers(setting):
    """peer/<peer>/<tokens>/1, and kvq's steps with one record for each baseline of their width or without loss."""
    import torch

    tokens = setting.size.peers
    inputs = dense_inputs(tokens)
    contenders = {}
    for peer, make in wanted_peers(setting, inputs).items():
        try:
            contenders[f"peer/{peer}/{tokens}/1"] = make()
        except native.Missing as reason:
            setting.missing[peer] = str(reason)
            print(f"    {peer} is not measured: {reason}", flush=True)
    own = kvq_contenders(setting, tokens)
    turns = {STREAM: setting.stream_contender(1), **{name: c.run for name, c in contenders.items()},
             **{name: step.run for name, (step, _) in own.items()}}
    with torch.inference_mode():
        times = common.interleave(turns, setting.rounds)
    elements = 2 * inputs[1].numel()
    case = {"tokens": tokens, "threads": 1, "d": D, "stream_times": times[STREAM]}
    medians = {name: add_step(setting, name, times[name], elements, c.bytes, stored_bits=c.bits,
                              relative_error=c.error, **case) for name, c in contenders.items()}
    for name, (step, about) in own.items():
        bits = int(about["format"][1])
        value = common.median_and_spread(times[name])[0]
        for baseline in (peer for peer, c in contenders.items() if c.bits in (bits, 16, 32)):
            add_step(setting, name, times[name], step.elements, step.bytes, baseline=baseline,
                     ratio=medians[baseline] / value, **case, **about)
