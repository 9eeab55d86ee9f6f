# SPDX-License-Identifier: Apache-2.0
"""The end of a run: shares of the stream, multiples of the peers, and what the suite must show beside what it found.

A bar that depends on a kind of processor that this one is not, or that was not measured, says so; it is never passed.
"""
import dataclasses

from cpu.setting import AVX2, D, EIGHT_BITS, FORMATS, FOUR_BITS, FULL, MAIN_CLASS
from cpu.shapes import HEAD_SIZES, QUERY_LENGTHS, RATIOS

# Shares that hand-written kernels reached on a core with AVX-512 VNNI; the suite asks for OF_PROTOTYPE of them.
PROTOTYPE = {"fast": (0.76, 0.74, 0.57, 0.55, 0.70), "exact": (0.63, 0.57, 0.47, 0.33, 0.45)}
OF_PROTOTYPE = 0.95
PROTOTYPE_QUANTIZE = {"float16": 22.0, "float32": 36.0}   # GB/s of input, the same core, groups of 128
MULTIPLES = ((EIGHT_BITS, "ggml-q8_0", 12), (FOUR_BITS, "ggml-q4_0", 35), (FOUR_BITS, "quantizedcache-int4", 40),
             (FOUR_BITS, "torch-", 8))
SLOW_MEMORY_SHARE = 0.70   # where so much of the stream gives less than a multiple, it is the bar instead
VNNI = "avx512_vnni"


@dataclasses.dataclass(frozen=True)
class Line:
    what: str
    asked: str
    got: str
    verdict: str   # "holds", "misses", or why there is neither


def verdict(holds):
    return "holds" if holds else "misses"


class Report:
    """Lines over the records of one run."""

    def __init__(self, records, about, classes, size):
        self.records, self.classes, self.size = records, classes, size
        self.vnni = VNNI in about["features"] and about["level"] == about["levels"][-1]
        self.level = about["level"]

    def find(self, prefix, **wanted):
        """Records whose name begins so and that have these values."""
        return [r for r in self.records if r["name"].startswith(prefix)
                and all(r.get(key) == value for key, value in wanted.items())]

    def share(self, text, name, threads=1):
        found = self.find(f"attend/{text}/{name}/{self.size.lengths[-1]}/{threads}", baseline=None)
        return found[0]["stream_share"] if found else None

    def shares(self):
        """The table of shares as lines of text, asked beside got."""
        tokens = self.size.lengths[-1]
        if not self.find("attend/", tokens=tokens, baseline=None):
            return
        yield f"share of the stream rate, {tokens} tokens, 1 thread, level {self.level} (asked with AVX-512 VNNI)"
        yield " " * 8 + "".join(f"{text:>22}" for text in FORMATS)
        for name in self.classes:
            asked = PROTOTYPE.get(name, (None,) * len(FORMATS))
            cells = (percent(self.share(text, name)) + (f" ({percent(OF_PROTOTYPE * bar)})" if bar else "")
                     for text, bar in zip(FORMATS, asked))
            yield f"{name:8}" + "".join(f"{cell:>22}" for cell in cells)

    def multiples(self):
        """kvq against each baseline as lines of text."""
        for record in self.find("attend/"):
            if record["baseline"]:
                yield f"{record['name']:52} {record['ratio']:8.2f}x of {record['baseline']}"

    def lines(self):
        """What the suite must show."""
        for name in ("fast", "exact"):
            yield self.share_line(name)
        for name in self.classes:
            yield from self.shape_lines(name)
            yield self.window_line(name)
            yield self.threads_line(name)
        for text, peer, asked in MULTIPLES:
            yield self.multiple_line(text, peer, asked)
        for text, peer in ((EIGHT_BITS, "ggml-q8_0"), (FOUR_BITS, "ggml-q4_0")):
            yield self.avx2_line(text, peer)
        for dtype, asked in PROTOTYPE_QUANTIZE.items():
            yield self.quantize_line(dtype, asked)

    def share_line(self, name):
        what = f"{name}: shares of the stream"
        asked = " ".join(percent(OF_PROTOTYPE * bar) for bar in PROTOTYPE[name])
        shares = [self.share(text, name) for text in FORMATS]
        got = " ".join(percent(share) for share in shares) if any(shares) else "-"
        if None in shares or self.size.lengths != FULL.lengths:
            return Line(what, asked, got, f"not measured at {FULL.lengths[-1]} tokens")
        if not self.vnni:
            return Line(what, asked, got, f"cannot be shown here: level {self.level} without {VNNI}")
        return Line(what, asked, got, verdict(all(share >= OF_PROTOTYPE * bar
                                                  for share, bar in zip(shares, PROTOTYPE[name]))))

    def extreme(self, what, asked, prefix, name, key, field, choose, holds):
        """A line about the worst of the records of a part: which case it is, and its figure."""
        found = [r for r in self.find(prefix, accuracy=name) if key(r)]
        if not found:
            return Line(f"{name}: {what}", asked, "-", "not measured")
        worst = choose(found, key=lambda r: r[field])
        return Line(f"{name}: {what}", asked, f"{worst[field]:.2f} ({worst['name'].rsplit('/', 1)[1]})",
                    verdict(holds(worst[field])))

    def shape_lines(self, name):
        small = HEAD_SIZES[:2]
        yield self.extreme("rate of D 64 and 80 of D 128's, ratio 4", ">= 0.65", "heads/", name,
                           lambda r: r["d"] in small, "rate_of_d128", min, lambda x: x >= 0.65)
        yield self.extreme("rate of D 96 to 256 of D 128's, ratio 4", ">= 0.80", "heads/", name,
                           lambda r: r["d"] not in (*small, D), "rate_of_d128", min, lambda x: x >= 0.8)
        yield self.extreme(f"cost of element and query head, ratio 4 to {RATIOS[-1]}, of ratio 4's", "<= 1.25",
                           "ratios/", name, lambda r: r["group_ratio"] >= 4, "query_head_cost_of_ratio_4", max,
                           lambda x: x <= 1.25)
        yield self.extreme("cost of element, ratio 1 to 3, of ratio 4's", "<= 1.00", "ratios/", name,
                           lambda r: r["group_ratio"] < 4, "element_cost_of_ratio_4", max, lambda x: x <= 1.0)
        yield self.extreme(f"k queries in one call of k calls, k 2 to {QUERY_LENGTHS[-1]}", "<= 0.85", "queries/", name,
                           lambda r: r["queries"] > 1, "cost_of_k_calls", max, lambda x: x <= 0.85)

    def window_line(self, name):
        seen, tokens = self.size.window
        what, asked = f"{name}: window of {seen} over {tokens} of a cache of {seen}, cost", "<= 1.10"
        found = [r for r in self.find("window/", accuracy=name) if r["baseline"]]
        if not found:
            return Line(what, asked, "-", "not measured")
        cost = 1 / found[0]["ratio"]
        return Line(what, asked, f"{cost:.2f}", verdict(cost <= 1.1))

    def threads_line(self, name):
        what, asked = f"{name}: two threads against one, worst format", ">= 1.80, or 90 % of the stream of two"
        tokens, worst = self.size.lengths[-1], None
        for text in FORMATS:
            one, two = (self.find(f"attend/{text}/{name}/{tokens}/{threads}", baseline=None) for threads in (1, 2))
            if one and two:
                case = (one[0]["value"] / two[0]["value"], two[0]["stream_share"], text)
                # A format at the stream's limit has nothing to gain: it is the worst only among such.
                worst = min((case, worst or case), key=lambda c: (c[1] >= 0.9, c[0]))
        if worst is None:
            return Line(what, asked, "-", "not measured")
        speedup, share, text = worst
        got = f"{speedup:.2f} and {percent(share)} ({text})"
        return Line(what, asked, got, verdict(speedup >= 1.8 or share >= 0.9))

    def multiple_line(self, text, peer, asked):
        what = f"{MAIN_CLASS}: {text} against {peer if peer[-1] != '-' else 'the fastest route of torch'}"
        prefix, bar = f"attend/{text}/{MAIN_CLASS}/{self.size.peers}/1", f">= {asked}x"
        found = [r for r in self.find(f"attend/{text}/{MAIN_CLASS}/", dtype="float32", level=self.level)
                 if r["name"] == prefix and r["baseline"] and r["baseline"].startswith(f"peer/{peer}")]
        if not found:
            return Line(what, bar, "-", "not measured")
        record = min(found, key=lambda r: r["ratio"])
        # The same step at that share of the stream: what memory allows on this machine.
        attainable = record["ratio"] * SLOW_MEMORY_SHARE / record["stream_share"]
        if attainable < asked:
            return Line(what, f">= {percent(SLOW_MEMORY_SHARE)} of the stream, which is {attainable:.1f}x here",
                        f"{percent(record['stream_share'])}, {record['ratio']:.1f}x",
                        verdict(record["stream_share"] >= SLOW_MEMORY_SHARE))
        return Line(what, bar, f"{record['ratio']:.1f}x", verdict(record["ratio"] >= asked))

    def avx2_line(self, text, peer):
        what, asked = f"{MAIN_CLASS}: {text} at {AVX2} against {peer} at its native level", ">= 5x"
        found = [r for r in self.find(f"attend/{text}/{MAIN_CLASS}/", dtype="float32", level=AVX2)
                 if r["baseline"] and r["baseline"].startswith(f"peer/{peer}/")]
        if not found:
            return Line(what, asked, "-", "not measured")
        return Line(what, asked, f"{found[0]['ratio']:.1f}x", verdict(found[0]["ratio"] >= 5))

    def quantize_line(self, dtype, asked):
        what = f"quantizing a page of {dtype} in groups of 128, slowest of the sides"
        asked *= OF_PROTOTYPE
        bar = f">= {asked:.1f} GB/s of input"
        found = [r for r in self.find("quantize/", dtype=dtype) if r["name"].split("/")[1].endswith("128")]
        if not found:
            return Line(what, bar, "-", "not measured")
        worst = min(found, key=lambda r: r["value"])
        got = f"{worst['value']:.1f} ({worst['name'].split('/')[1]})"
        if not self.vnni:
            return Line(what, bar, got, f"cannot be shown here: level {self.level} without {VNNI}")
        return Line(what, bar, got, verdict(worst["value"] >= asked))


def percent(share):
    return "-" if share is None else f"{100 * share:.0f} %"


def print_report(report, missing):
    """Tables and lines; returns the lines for the JSON file."""
    for heading, text in (("", list(report.shares())), ("against peers in the same run", list(report.multiples()))):
        if text:
            print("\n".join(["", *([heading] if heading else []), *text]))
    for peer, reason in missing.items():
        print(f"{peer} was not measured: {reason}")
    lines = list(report.lines())
    print("\nwhat it must show")
    for line in lines:
        if line.got != "-":
            print(f"{line.what}\n    asked {line.asked}; got {line.got}: {line.verdict}")
    print(f"{sum(line.got == '-' for line in lines)} of {len(lines)} were not measured or are not offered")
    print("A whole model's rate is another suite's: ./dev bench decode", flush=True)
    return [dataclasses.asdict(line) for line in lines]
