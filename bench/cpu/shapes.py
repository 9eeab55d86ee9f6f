# SPDX-License-Identifier: Apache-2.0
"""What other shapes of a step cost: head sizes, group ratios, query lengths, windows, prefill, ragged batches."""
import common
from cpu.setting import D, EIGHT_BITS, FOUR_BITS, KV_HEADS, Q_HEADS
from cpu.steps import Steps, add_step, head_format

HEAD_SIZES = (64, 80, 96, 128, 192, 256)
RATIOS = (1, 2, 3, 4, 5, 6, 7, 8, 16)
QUERY_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8)
RAGGED_ROWS = 8


def turns(setting, steps):
    """{key: times} and {key: median} of {key: Steps}."""
    times = common.interleave({key: step.run for key, step in steps.items()}, setting.rounds)
    return times, {key: common.median_and_spread(values)[0] for key, values in times.items()}


def each_class(setting, make, cases):
    """{(case, class): Steps} of make(case, class options)."""
    return {(case, name): make(case, {"accuracy": name}) for case in cases for name in setting.classes}


def heads(setting):
    """heads/<format>/<class>/<tokens>/1/d<D>: ratio 4; against D 128, by elements a second."""
    tokens = setting.size.shapes
    steps = each_class(setting, lambda d, options: Steps(setting.context(1), head_format(FOUR_BITS, d), [tokens], d=d,
                                                         rotate=setting.rotate, **options), HEAD_SIZES)
    times, medians = turns(setting, steps)

    def name_of(d, name):
        return f"heads/{steps[d, name].text}/{name}/{tokens}/1/d{d}"

    for (d, name), step in steps.items():
        rate = {size: steps[size, name].elements / medians[size, name] for size in HEAD_SIZES}
        add_step(setting, name_of(d, name), times[d, name], step.elements, step.bytes, format=step.text, accuracy=name,
                 tokens=tokens, threads=1, d=d, rate_of_d128=rate[d] / rate[D])


def ratios(setting):
    """ratios/<format>/<class>/<tokens>/1/g<ratio>: query heads of one KV head, with the cost of an element."""
    tokens = setting.size.shapes
    steps = each_class(setting, lambda ratio, options: Steps(setting.context(1), FOUR_BITS, [tokens],
                                                             q_heads=ratio * KV_HEADS, rotate=setting.rotate,
                                                             **options), RATIOS)
    times, medians = turns(setting, steps)
    for (ratio, name), step in steps.items():
        element = 1e6 * medians[ratio, name] / step.elements
        of_four = medians[ratio, name] / medians[4, name]
        add_step(setting, f"ratios/{FOUR_BITS}/{name}/{tokens}/1/g{ratio}", times[ratio, name], step.elements,
                 step.bytes, format=FOUR_BITS, accuracy=name, tokens=tokens, threads=1, d=D, group_ratio=ratio,
                 ns_per_element=element, ns_per_element_and_query_head=element / ratio,
                 element_cost_of_ratio_4=of_four, query_head_cost_of_ratio_4=of_four * 4 / ratio)


def queries(setting):
    """queries/<format>/<class>/<tokens>/1/q<k>: k tokens in one call; against k calls of one."""
    tokens = setting.size.shapes
    for text in (FOUR_BITS, EIGHT_BITS):
        steps = each_class(setting, lambda k, options: Steps(setting.context(1), text, [tokens], new=k,
                                                             rotate=setting.rotate, **options), QUERY_LENGTHS)
        times, medians = turns(setting, steps)
        for (k, name), step in steps.items():
            single = f"queries/{text}/{name}/{tokens}/1/q1"
            add_step(setting, single[:-1] + str(k), times[k, name], step.elements, step.bytes, format=text,
                     accuracy=name, tokens=tokens, threads=1, d=D, queries=k,
                     cost_of_k_calls=medians[k, name] / (k * medians[1, name]))


def window(setting):
    """window/<format>/<class>/<tokens>/1/w<window>: a window over a long cache against a cache that is as short."""
    seen, tokens = setting.size.window
    for name in setting.classes:
        options = {"rotate": setting.rotate, "accuracy": name}
        steps = {"long": Steps(setting.context(1), FOUR_BITS, [tokens], window=seen, **options),
                 "short": Steps(setting.context(1), FOUR_BITS, [seen], **options)}
        times, medians = turns(setting, steps)
        prefix = f"window/{FOUR_BITS}/{name}"
        names = {"long": f"{prefix}/{tokens}/1/w{seen}", "short": f"{prefix}/{seen}/1"}
        for key, step in reversed(steps.items()):
            against = {"baseline": names["short"], "ratio": medians["short"] / medians[key]} if key == "long" else {}
            add_step(setting, names[key], times[key], step.elements, step.bytes, format=FOUR_BITS, accuracy=name,
                     tokens=step.lengths[0], threads=1, d=D, **against)


def prefill(setting):
    """prefill/<format>/<class>/<new>+<past>/1, in new tokens a second; against dense K and V with PyTorch's SDPA.

    The step is taken back in the end, so that each turn meets the same cache. SDPA gets no mask: its queries see the
    new tokens behind them too, which costs it less than choosing among them.
    """
    import torch

    new, past = setting.size.prefill
    q, k, v = (torch.randn(1, KV_HEADS, rows, D) for rows in (new * Q_HEADS // KV_HEADS, past + new, past + new))

    def dense():
        torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=D**-0.5)
        return 1

    steps = {name: Steps(setting.context(1), FOUR_BITS, [past], new=new, keep=False, rotate=0,
                         accuracy=name) for name in setting.classes}
    baseline = f"peer/torch-sdpa-float32/{new}+{past}/1"
    times = common.interleave({baseline: dense, **{name: step.run for name, step in steps.items()}}, setting.rounds)
    for name, values in times.items():
        rate, spread = common.median_and_spread([1e3 * new / ms for ms in values])
        own = name != baseline
        setting.records.add(f"prefill/{FOUR_BITS}/{name}/{new}+{past}/1" if own else baseline, rate, "tokens/s", spread,
                            baseline if own else None,
                            rate / common.median_and_spread([1e3 * new / ms for ms in times[baseline]])[0] if own
                            else None, ms=common.median_and_spread(values)[0], new_tokens=new, tokens=past, threads=1,
                            accuracy=name if own else None, format=FOUR_BITS if own else None)


def ragged(setting):
    """ragged/<format>/<class>/<rows>x<shortest>-<longest>/<threads>: a batch of unequal lengths, against one thread."""
    low, high = setting.size.ragged
    lengths = [low + row * (high - low) // (RAGGED_ROWS - 1) for row in range(RAGGED_ROWS)]
    for name in setting.classes:
        steps = {threads: Steps(setting.context(threads), FOUR_BITS, lengths, rotate=setting.rotate,
                                accuracy=name) for threads in setting.size.threads}
        times, medians = turns(setting, steps)
        prefix = f"ragged/{FOUR_BITS}/{name}/{RAGGED_ROWS}x{low}-{high}"
        for threads, step in steps.items():
            against = {} if threads == 1 else {"baseline": f"{prefix}/1", "ratio": medians[1] / medians[threads]}
            add_step(setting, f"{prefix}/{threads}", times[threads], step.elements, step.bytes, format=FOUR_BITS,
                     accuracy=name, tokens=sum(lengths), threads=threads, d=D, **against)
