# SPDX-License-Identifier: Apache-2.0
"""Cache texts (spec section 1), legal pages (4), frontiers and tails (5, 6). Nothing here touches a tensor's values."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

PRESETS = {
    "kivi-2": "k2c32-v2t32/w128,sliding",
    "kivi-4": "k4c32-v4t32/w128,sliding",
    "kvq-8": "k8c32-v8t32/w128,block",
    "kvq-4": "k4c32-v4t32/w128,block",
    "kvq-k4v2": "k4c32-v2t32/w128,block",
    "kvq-3": "k3c32-v3t32/w128,block",
    "kvq-2": "k2c32-v2t32/w128,block",
}
CHUNK_TOKENS = 32  # tail_c1
MAX_WINDOW = 65536  # text_c3
MAX_KEEP = 1024  # text_c8
WHOLE_HEAD = "h"  # text_c9
DTYPE_BYTES = {"f32": 4, "bf16": 2, "f16": 2}


class FormatError(ValueError):
    """text_c7, page_c1 or quantize_c3 is violated; the message is one sentence."""


@dataclass(frozen=True)
class Side:
    bits: int
    axis: str  # "c": a group is tokens of one channel; "t": channels of one token
    group: int | str  # WHOLE_HEAD until D is known

    def at(self, head_dim):
        """text_c9: the side as pages have it."""
        return Side(self.bits, self.axis, head_dim) if self.group == WHOLE_HEAD else self

    @property
    def levels(self):
        return (1 << self.bits) - 1

    @property
    def per_channel(self):
        return self.axis == "c"

    def __str__(self):
        return f"{self.bits}{self.axis}{self.group}"


@dataclass(frozen=True)
class Pair:
    k: Side
    v: Side

    def side(self, which):
        return {"K": self.k, "V": self.v}[which]

    def at(self, dk, dv):
        """text_c9: the pair as pages have it."""
        return Pair(self.k.at(dk), self.v.at(dv))

    def __str__(self):
        return f"k{self.k}-v{self.v}"


@dataclass(frozen=True)
class Cache:
    pair: Pair
    window: int = 128
    rule: str = "block"
    keep: int = 0

    def __str__(self):
        keep = f",keep{self.keep}" if self.keep else ""
        return f"{self.pair}/w{self.window}{keep},{self.rule}"


def _number(digits, what, allowed):
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", digits):
        raise FormatError(f"{what} is '{digits}', not a decimal number without leading zero; allowed is {allowed}.")
    return int(digits)


def parse_side(text, name="side"):
    """text_c1, text_c2, text_c9."""
    match = re.fullmatch(r"([0-9]*)([A-Za-z]?)(h|[0-9]*)(.*)", text, re.ASCII | re.DOTALL)
    width, axis, digits, rest = match.groups()
    if rest:
        raise FormatError(f"{name} is '{text}' with '{rest}' left over; write width, axis and group as in 4c32.")
    if width not in ("2", "3", "4", "8"):
        raise FormatError(f"{name}'s width is '{width}'; allowed are 2, 3, 4 and 8.")
    if axis not in ("c", "t"):
        raise FormatError(f"{name}'s axis is '{axis}'; allowed are c (per channel) and t (per token).")
    if axis == "t" and digits == WHOLE_HEAD:
        return Side(int(width), axis, WHOLE_HEAD)
    if axis == "c":
        allowed = "32, 64, 128 or 256 per channel"
        group = _number(digits, f"{name}'s group", allowed)
        legal = group in (32, 64, 128, 256)
    else:
        allowed = "h or a multiple of 16 up to 256 per token"
        group = _number(digits, f"{name}'s group", allowed)
        legal = 16 <= group <= 256 and group % 16 == 0
    if not legal:
        raise FormatError(f"{name}'s group is {group}; allowed is {allowed}.")
    return Side(int(width), axis, group)


@lru_cache(maxsize=None)
def parse_pair(text):
    match = re.fullmatch(r"k([^-]*)-v([^-]*)", text, re.DOTALL)
    if not match:
        raise FormatError(f"The pair is '{text}'; write k, K's side, -v and V's side as in k4c32-v4t32.")
    return Pair(parse_side(match[1], "K"), parse_side(match[2], "V"))


def parse_cache(text):
    """Accepts presets; text_c3 to text_c8."""
    pair_text, slash, policy = PRESETS.get(text, text).partition("/")
    pair = parse_pair(pair_text)
    if not slash:
        return Cache(pair)
    window_text, *rest = policy.split(",")
    if not window_text.startswith("w"):
        raise FormatError(f"The policy is '{policy}'; write w and a window as in w128,block.")
    window = _bounded(window_text[1:], "The window", MAX_WINDOW)
    keep = _bounded(rest.pop(0)[4:], "keep", MAX_KEEP) if rest and rest[0].startswith("keep") else 0
    rule = ",".join(rest) if rest else "block"
    if rule not in _RULES:
        raise FormatError(f"The rule is '{rule}'; allowed are block, sliding and flush.")
    _RULES[rule](pair, window)
    return Cache(pair, window, rule, keep)


def _bounded(digits, what, largest):
    allowed = f"0 to {largest}"
    number = _number(digits, what, allowed)
    if number > largest:
        raise FormatError(f"{what} is {number}; allowed is {allowed}.")
    return number


def _check_block(pair, window):
    """text_c4: any window."""


def _check_sliding(pair, window):
    """text_c4."""
    if window < 1:
        raise FormatError("The window is 0; sliding needs at least 1.")
    if not pair.k.per_channel:
        raise FormatError(f"K is '{pair.k}'; sliding needs K per channel.")
    if window % pair.k.group:
        raise FormatError(f"K's group is {pair.k.group}; sliding needs one that divides the window {window}.")
    if pair.v.per_channel:
        raise FormatError(f"V is '{pair.v}'; sliding needs V per token.")


def _check_flush(pair, window):
    """text_c4."""
    for name, side in (("K", pair.k), ("V", pair.v)):
        if side.per_channel and window < 1:
            raise FormatError(f"The window is 0; flush needs at least 1 where {name} is per channel.")
        if side.per_channel and window % side.group:
            raise FormatError(f"{name}'s group is {side.group}; flush needs one that divides the window {window}.")


_RULES = {"block": _check_block, "sliding": _check_sliding, "flush": _check_flush}


def as_cache(cache):
    return parse_cache(cache) if isinstance(cache, str) else cache


def cache_at(cache, dk, dv):
    """text_c9: the cache with its groups as numbers."""
    cache = as_cache(cache)
    return replace(cache, pair=cache.pair.at(dk, dv))


def as_pair(pair):
    return parse_pair(pair) if isinstance(pair, str) else pair


def commit_group(pair):
    """commit_c1."""
    return max([32] + [side.group for side in (pair.k, pair.v) if side.per_channel])


def body_tokens(cache, tokens):
    """commit_c7: how many of a sequence's tokens are not kept in full precision for ever."""
    return max(0, tokens - cache.keep)


def body_frontier(cache, body):
    """commit_c2, commit_c3, commit_c8: (fK, fV) of a sequence of so many body tokens, in body tokens."""
    window = cache.window
    if cache.rule == "sliding":
        return window * (body // window), max(0, body - window)
    if cache.rule == "flush":
        whole = max(window, 1)
        return (whole * (body // whole),) * 2
    step = commit_group(cache.pair)
    return (step * (max(0, body - window) // step),) * 2


def frontier(cache, tokens):
    """(fK, fV) in body tokens of a sequence of `tokens` tokens, kept ones included."""
    return body_frontier(cache, body_tokens(cache, tokens))


def cut_unit(cache, which):
    """crop_c1: u of one side."""
    pair = cache.pair
    if cache.rule == "sliding":
        return pair.k.group if which == "K" else 1
    if cache.rule == "flush":
        return max([1] + [side.group for side in (pair.k, pair.v) if side.per_channel])
    return commit_group(pair)


def _round_up(number, to):
    return -(-number // to) * to


def tail_capacity(cache):
    """tail_c1: cap, the rows of the ring."""
    if cache.rule == "block":
        return _round_up(cache.window + commit_group(cache.pair) + CHUNK_TOKENS, 16)
    return _round_up(max(cache.window, 1) + CHUNK_TOKENS, 16)


def tail_rows(cache):
    """tail_c1: the ring and the rows of kept tokens."""
    return tail_capacity(cache) + _round_up(cache.keep, 16)


def legal_page_tokens(pair):
    """page_c1. Groups and the commit group are powers of two from 32, so a multiple of the largest fits all."""
    step = commit_group(pair)
    return [tokens for tokens in range(32, 257, 16) if tokens % step == 0]


def default_page_tokens(pair):
    return max(64, commit_group(pair))


def check_shape(pair, dk, dv, page_tokens):
    """text_c2, text_c9, page_c1: raises unless the pair fits head sizes and page."""
    for name, side, head_dim in (("K", pair.k, dk), ("V", pair.v, dv)):
        if head_dim % 16 or not 16 <= head_dim <= 256:
            raise FormatError(f"{name}'s head size is {head_dim}; allowed is a multiple of 16 from 16 to 256.")
        if not side.per_channel and head_dim % side.at(head_dim).group:
            raise FormatError(f"{name}'s group is {side.group}; per token it must divide the head size {head_dim}.")
    legal = legal_page_tokens(pair)
    if page_tokens not in legal:
        raise FormatError(f"page_tokens is {page_tokens}; allowed for {pair} are {', '.join(map(str, legal))}.")


def page_map(pair, page_tokens, dk, dv):
    """page_c2, page_c3: byte offsets of the sections and the page's size, by name."""
    offsets, offset = {}, 0
    pair = pair.at(dk, dv)
    for which, side, head_dim in (("K", pair.k, dk), ("V", pair.v, dv)):
        codes = page_tokens * head_dim * side.bits // 8
        coefficients = 2 * (page_tokens * head_dim // side.group)
        for section, size in (("codes", codes), ("scale", coefficients), ("min", coefficients)):
            offsets[which, section] = (offset, size)
            offset = _round_up(offset + size, 64)
    offsets["bytes"] = offset
    return offsets


def page_bytes(pair, page_tokens, dk, dv):
    return page_map(pair, page_tokens, dk, dv)["bytes"]


def bits_per_element(pair, page_tokens, dk, dv):
    """page_c5, without window and slack."""
    return 8 * page_bytes(pair, page_tokens, dk, dv) / (page_tokens * (dk + dv))


def cache_bytes(cache, layers, kv_heads, dk, dv, dtype, page_tokens, blocks, slots):
    """tail_c2."""
    pages = blocks * layers * kv_heads * page_bytes(cache.pair, page_tokens, dk, dv)
    tails = slots * layers * kv_heads * tail_rows(cache) * (dk + dv) * DTYPE_BYTES[dtype]
    return pages + tails
