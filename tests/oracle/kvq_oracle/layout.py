# SPDX-License-Identifier: Apache-2.0
"""Layouts (spec section 3): where each bit of a page section lives, by a table of addresses for each plane."""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


class LayoutError(ValueError):
    """layout_c1 is violated, or a text is not of layout_c4's form."""


@dataclass(frozen=True)
class Layout:
    """Inner bits: one (dim, bit) per address bit, low first. Loops: (dim, count), fastest first. dim: "tok", "ch"."""

    inner: tuple
    loops: tuple

    def inner_bits(self, dim):
        return sum(1 for name, _ in self.inner if name == dim)

    def extent(self, dim):
        size = 1 << self.inner_bits(dim)
        for name, count in self.loops:
            size *= count if name == dim else 1
        return size

    def addresses(self):
        """layout_c1: int64 [tokens, channels]; refuses what is not a bijection."""
        shape = (self.extent("tok"), self.extent("ch"))
        index = dict(zip(("tok", "ch"), np.meshgrid(*map(np.arange, shape), indexing="ij")))
        address = np.zeros(shape, np.int64)
        for position, (dim, bit) in enumerate(self.inner):
            address |= ((index[dim] >> bit) & 1) << position
        rest = {dim: index[dim] >> self.inner_bits(dim) for dim in index}
        weight = 1 << len(self.inner)
        for dim, count in self.loops:
            address += rest[dim] % count * weight
            rest[dim] = rest[dim] // count
            weight *= count
        if not np.array_equal(np.sort(address, axis=None), np.arange(address.size)):
            raise LayoutError(f"{self} is not a bijection onto 0 .. {address.size - 1}; use each index bit once.")
        return address

    def __str__(self):
        inner = " ".join(f"{dim}.{bit}" for dim, bit in self.inner)
        return " ".join([f"[{inner}]"] + [f"{dim}:{count}" for dim, count in self.loops])


def parse_layout(text):
    """layout_c4."""
    match = re.fullmatch(r"\[((?:(?:tok|ch)\.[0-9]+ ?)*)\]((?: (?:tok|ch):[1-9][0-9]*)*)", text)
    if not match:
        raise LayoutError(f"The layout is '{text}'; write it as in [ch.0 tok.0] tok:32 ch:8.")
    inner = tuple((dim, int(bit)) for dim, bit in re.findall(r"(tok|ch)\.([0-9]+)", match[1]))
    loops = tuple((dim, int(count)) for dim, count in re.findall(r"(tok|ch):([0-9]+)", match[2]))
    return Layout(inner, loops)


def plane_bits(bits):
    """layout_c5: bits of each plane, the lowest first."""
    planes = {2: (2,), 3: (2, 1), 4: (4,), 8: (8,)}
    if bits not in planes:
        raise LayoutError(f"The width is {bits}; allowed are 2, 3, 4 and 8.")
    return planes[bits]


def section_text(profile, which, bits, page_tokens, head_dim):
    """layout_c4: the text of all planes of a section."""
    widths = plane_bits(bits)
    maps = [str(make_layout(profile, which, w, page_tokens, head_dim)) for w in widths]
    return maps[0] if len(maps) == 1 else " + ".join(f"{w}:{text}" for w, text in zip(widths, maps))


def make_layout(profile, which, bits, page_tokens, head_dim):
    """The map of a plane of so many bits in the profiles of section 3. which: "K" or "V"."""
    if profile == "mma":
        return _mma(which, bits, page_tokens, head_dim)
    if profile == "kivi":
        along, size, across, count = (
            ("tok", page_tokens, "ch", head_dim) if which == "K" else ("ch", head_dim, "tok", page_tokens)
        )
        per_word = 32 // bits
        inner = tuple((along, i) for i in range(per_word.bit_length() - 1))
        return Layout(inner, ((along, size // per_word), (across, count)))
    if profile != "vnni":
        raise LayoutError(f"The profile is '{profile}'; allowed are vnni, kivi and mma.")
    if bits == 1:
        return _one_bit(which, page_tokens, head_dim)
    per_byte = 8 // bits
    word, lane = ("ch", "tok") if which == "K" else ("tok", "ch")
    word_size, lane_size = (head_dim, page_tokens) if which == "K" else (page_tokens, head_dim)
    select = [(word, 2 + i) for i in range(per_byte.bit_length() - 1)]
    inner = select + [(word, 0), (word, 1)] + [(lane, i) for i in range(4)]
    panel = 64 if lane_size % 64 == 0 else lane_size
    loops = ((lane, panel // 16), (word, word_size // (4 * per_byte)), (lane, lane_size // panel))
    return Layout(tuple(inner), loops)


def _one_bit(which, page_tokens, head_dim):
    """The rows "w = 1" of the table of profiles."""
    panel = lambda size: 64 if size % 64 == 0 else size
    if which == "K":
        inner = "ch.2 ch.3 tok.4 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3"
        tokens = panel(page_tokens)
        return parse_layout(f"[{inner}] tok:{tokens // 32} ch:{head_dim // 16} tok:{page_tokens // tokens}")
    inner = "tok.2 tok.3 tok.4 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3"
    channels = panel(head_dim)
    return parse_layout(f"[{inner}] ch:{channels // 16} tok:{page_tokens // 32} ch:{head_dim // channels}")


# layout_c7, the columns of its table: fields of a byte, fields of a word, words, lanes, rest.
_MMA = {
    "K": ("tok.1 tok.2", "ch.2 ch.0", "tok.1 ch.1 ch.5 tok.2 tok.5", "ch.3 ch.4 tok.0 tok.3 tok.4", "tok.2"),
    "K, else": ("tok.1 tok.2", "ch.1 ch.0", "tok.1 tok.2 tok.5", "ch.2 ch.3 tok.0 tok.3 tok.4", ""),
    "V": ("ch.3 ch.4 tok.1", "tok.2 tok.0", "ch.3 tok.1 tok.5 ch.4 ch.5", "tok.3 tok.4 ch.0 ch.1 ch.2", ""),
}


def _mma(which, bits, page_tokens, head_dim):
    """The row "mma" of the table of profiles."""
    if bits not in (2, 4, 8):
        raise LayoutError(f"The width is {bits}; layout_c6: mma has 2, 4 and 8 bits.")
    size = {"tok": page_tokens, "ch": head_dim}
    exists = lambda bit: size[bit.split(".")[0]] % 2 ** (int(bit.split(".")[1]) + 1) == 0
    column = _MMA["K, else" if which == "K" and head_dim % 32 else which]
    inner = []
    for row, most in zip(column, ({8: 0, 4: 1, 2: 2}[bits], 2, 2, 5, 1)):
        inner += [bit for bit in row.split() if exists(bit) and bit not in inner][:most]
    left = {dim: count >> sum(bit.startswith(dim) for bit in inner) for dim, count in size.items()}
    return parse_layout(f"[{' '.join(inner)}] ch:{left['ch']} tok:{left['tok']}")


@lru_cache(maxsize=None)
def address_table(profile, which, bits, page_tokens, head_dim):
    layout = make_layout(profile, which, bits, page_tokens, head_dim)
    if (layout.extent("tok"), layout.extent("ch")) != (page_tokens, head_dim):
        raise LayoutError(f"{layout} does not cover {page_tokens} tokens of {head_dim} channels; use multiples of 16.")
    table = layout.addresses()
    table.setflags(write=False)
    return table


@lru_cache(maxsize=None)
def plane_tables(profile, which, bits, page_tokens, head_dim):
    """(bits, table of addresses) of each plane, the lowest first."""
    if profile != "vnni" and len(plane_bits(bits)) > 1:
        raise LayoutError(f"The width is {bits}; layout_c6: {profile} has 2, 4 and 8 bits.")
    tables = (address_table(profile, which, w, page_tokens, head_dim) for w in plane_bits(bits))
    return tuple(zip(plane_bits(bits), tables))


def pack_plane(fields, table, bits):
    """layout_c2: fields [tokens, channels] to bytes."""
    flat = np.empty(table.size, np.uint8)
    flat[table.ravel()] = np.asarray(fields, np.uint8).ravel()
    parts = flat.reshape(-1, 8 // bits)
    shifts = np.arange(8 // bits, dtype=np.uint8) * np.uint8(bits)
    return np.bitwise_or.reduce(parts << shifts, axis=1)


def unpack_plane(data, table, bits):
    """layout_c3: the inverse of pack_plane."""
    shifts = np.arange(8 // bits, dtype=np.uint8) * np.uint8(bits)
    flat = (np.asarray(data, np.uint8)[:, None] >> shifts) & np.uint8((1 << bits) - 1)
    return flat.reshape(-1)[table]


def pack(codes, planes):
    """Codes [tokens, channels] to the bytes of a section: its planes one after the other."""
    codes, parts = np.asarray(codes, np.uint8), []
    for bits, table in planes:
        parts.append(pack_plane(codes & np.uint8((1 << bits) - 1), table, bits))
        codes = codes >> np.uint8(bits % 8)
    return np.concatenate(parts)


def unpack(data, planes):
    """layout_c3: the inverse of pack."""
    codes, begin, low = 0, 0, 0
    for bits, table in planes:
        end = begin + table.size * bits // 8
        codes = codes | unpack_plane(data[begin:end], table, bits) << np.uint8(low)
        begin, low = end, low + bits
    return codes
