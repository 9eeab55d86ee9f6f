# SPDX-License-Identifier: Apache-2.0
"""Cache texts (spec section 1), legal pages (4), frontiers and tails (5, 6). Nothing here touches a tensor's values."""

import re
from dataclasses import dataclass

PRESETS = {
    "kivi-2": "k2c32-v2t32/w128,sliding",
    "kivi-4": "k4c32-v4t32/w128,sliding",
    "kvq-8": "k8c32-v8t32/w128,block",
    "kvq-4": "k4c32-v4t32/w128,block",
    "kvq-k4v2": "k4c32-v2t32/w128,block",
    "kvq-2": "k2c32-v2t32/w128,block",
}
CHUNK_TOKENS = 32  # tail_c1
MAX_WINDOW = 65536  # text_c3
DTYPE_BYTES = {"f32": 4, "bf16": 2}


class FormatError(ValueError):
    """text_c7, page_c1 or quantize_c3 is violated; the message is one sentence."""


@dataclass(frozen=True)
class Side:
    bits: int
    axis: str  # "c": a group is tokens of one channel; "t": channels of one token
    group: int

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

    def __str__(self):
        return f"k{self.k}-v{self.v}"


@dataclass(frozen=True)
class Cache:
    pair: Pair
    window: int = 128
    rule: str = "block"

    def __str__(self):
        return f"{self.pair}/w{self.window},{self.rule}"


def _number(digits, what, allowed):
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", digits):
        raise FormatError(f"{what} is '{digits}', not a decimal number without leading zero; allowed is {allowed}.")
    return int(digits)


def parse_side(text, name="side"):
    """text_c1, text_c2."""
    match = re.fullmatch(r"([0-9]*)([A-Za-z]?)([0-9]*)(.*)", text, re.ASCII | re.DOTALL)
    width, axis, digits, rest = match.groups()
    if rest:
        raise FormatError(f"{name} is '{text}' with '{rest}' left over; write width, axis and group as in 4c32.")
    if width not in ("2", "4", "8"):
        raise FormatError(f"{name}'s width is '{width}'; allowed are 2, 4 and 8.")
    if axis not in ("c", "t"):
        raise FormatError(f"{name}'s axis is '{axis}'; allowed are c (per channel) and t (per token).")
    if axis == "c":
        allowed = "32, 64 or 128 per channel"
        group = _number(digits, f"{name}'s group", allowed)
        legal = group in (32, 64, 128)
    else:
        allowed = "a multiple of 16 up to 256 per token"
        group = _number(digits, f"{name}'s group", allowed)
        legal = 16 <= group <= 256 and group % 16 == 0
    if not legal:
        raise FormatError(f"{name}'s group is {group}; allowed is {allowed}.")
    return Side(int(width), axis, group)


def parse_pair(text):
    match = re.fullmatch(r"k([^-]*)-v([^-]*)", text, re.DOTALL)
    if not match:
        raise FormatError(f"The pair is '{text}'; write k, K's side, -v and V's side as in k4c32-v4t32.")
    return Pair(parse_side(match[1], "K"), parse_side(match[2], "V"))


def parse_cache(text):
    """Accepts presets; text_c3 to text_c7."""
    pair_text, slash, policy = PRESETS.get(text, text).partition("/")
    pair = parse_pair(pair_text)
    if not slash:
        return Cache(pair)
    window_text, comma, rule = policy.partition(",")
    if not window_text.startswith("w"):
        raise FormatError(f"The policy is '{policy}'; write w and a window as in w128,block.")
    window = _number(window_text[1:], "The window", f"0 to {MAX_WINDOW}")
    if window > MAX_WINDOW:
        raise FormatError(f"The window is {window}; allowed is 0 to {MAX_WINDOW}.")
    if not comma:
        rule = "block"
    if rule not in ("block", "sliding"):
        raise FormatError(f"The rule is '{rule}'; allowed are block and sliding.")
    if rule == "sliding":
        _check_sliding(pair, window)
    return Cache(pair, window, rule)


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


def as_cache(cache):
    return parse_cache(cache) if isinstance(cache, str) else cache


def as_pair(pair):
    return parse_pair(pair) if isinstance(pair, str) else pair


def commit_group(pair):
    """commit_c1."""
    return max([32] + [side.group for side in (pair.k, pair.v) if side.per_channel])


def frontier(cache, tokens):
    """commit_c2, commit_c3: (fK(n), fV(n))."""
    window = cache.window
    if cache.rule == "sliding":
        return window * (tokens // window), max(0, tokens - window)
    step = commit_group(cache.pair)
    both = step * (max(0, tokens - window) // step)
    return both, both


def tail_capacity(cache):
    """tail_c1, in tokens."""
    slack = CHUNK_TOKENS if cache.rule == "sliding" else commit_group(cache.pair) + CHUNK_TOKENS
    return -(-(cache.window + slack) // 16) * 16


def legal_page_tokens(pair):
    """page_c1. Groups and the commit group are powers of two from 32, so a multiple of the largest fits all."""
    step = commit_group(pair)
    return [tokens for tokens in range(32, 257, 16) if tokens % step == 0]


def default_page_tokens(pair):
    return max(64, commit_group(pair))


def check_shape(pair, dk, dv, page_tokens):
    """text_c2, page_c1: raises unless the pair fits head sizes and page."""
    for name, side, head_dim in (("K", pair.k, dk), ("V", pair.v, dv)):
        if head_dim % 16 or not 16 <= head_dim <= 256:
            raise FormatError(f"{name}'s head size is {head_dim}; allowed is a multiple of 16 from 16 to 256.")
        if not side.per_channel and head_dim % side.group:
            raise FormatError(f"{name}'s group is {side.group}; per token it must divide the head size {head_dim}.")
    legal = legal_page_tokens(pair)
    if page_tokens not in legal:
        raise FormatError(f"page_tokens is {page_tokens}; allowed for {pair} are {', '.join(map(str, legal))}.")


def _align(offset):
    return -(-offset // 64) * 64


def page_map(pair, page_tokens, dk, dv):
    """page_c2, page_c3: byte offsets of the sections and the page's size, by name."""
    offsets, offset = {}, 0
    for which, side, head_dim in (("K", pair.k, dk), ("V", pair.v, dv)):
        codes = page_tokens * head_dim * side.bits // 8
        coefficients = 2 * (page_tokens * head_dim // side.group)
        for section, size in (("codes", codes), ("scale", coefficients), ("min", coefficients)):
            offsets[which, section] = (offset, size)
            offset = _align(offset + size)
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
    tails = slots * layers * kv_heads * tail_capacity(cache) * (dk + dv) * DTYPE_BYTES[dtype]
    return pages + tails
