# SPDX-License-Identifier: Apache-2.0
"""A page as bytes (spec section 4): written token by token or group by group, read back as codes or as values."""

import numpy as np

from . import layout
from .quantize import Quantized, dequantize, quantize
from .text import as_pair, check_shape, page_map


class Page:
    """P tokens of one KV head. `data` (uint8) is borrowed if given: what is not written stays as it is."""

    def __init__(self, pair, page_tokens, dk, dv, profile="vnni", data=None):
        check_shape(as_pair(pair), dk, dv, page_tokens)
        self.pair = as_pair(pair).at(dk, dv)
        self.page_tokens = page_tokens
        self.head_dim = {"K": dk, "V": dv}
        self.profile = profile
        self.map = page_map(self.pair, page_tokens, dk, dv)
        self.data = np.zeros(self.map["bytes"], np.uint8) if data is None else data
        if self.data.dtype != np.uint8 or self.data.shape != (self.map["bytes"],):
            raise ValueError(f"A page of {self.pair} is {self.map['bytes']} bytes of uint8.")

    def section(self, which, name):
        begin, size = self.map[which, name]
        return self.data[begin : begin + size]

    def _planes(self, which):
        bits = self.pair.side(which).bits
        return layout.plane_tables(self.profile, which, bits, self.page_tokens, self.head_dim[which])

    def _coefficients(self, which, name):
        """page_c3: the f16 view of scales or minima, [P/g][D] per channel, [D/g][P] per token."""
        side, head_dim = self.pair.side(which), self.head_dim[which]
        values = self.section(which, name).view(np.float16)
        if side.per_channel:
            return values.reshape(self.page_tokens // side.group, head_dim)
        return values.reshape(head_dim // side.group, self.page_tokens)

    def codes(self, which):
        return layout.unpack(self.section(which, "codes"), self._planes(which))

    def write_quantized(self, which, first, quantized):
        """Stores Quantized [tokens, channels] as the rows from `first` on."""
        side, count = self.pair.side(which), quantized.q.shape[0]
        if first + count > self.page_tokens:
            raise ValueError(f"Tokens {first} to {first + count} leave a page of {self.page_tokens}.")
        codes = self.codes(which)
        codes[first : first + count] = quantized.q
        self.section(which, "codes")[:] = layout.pack(codes, self._planes(which))
        for name, part in (("scale", quantized.s), ("min", quantized.m)):
            target = self._coefficients(which, name)
            if side.per_channel:
                if first % side.group or count % side.group:
                    raise ValueError(f"Tokens {first} to {first + count} are not whole groups of {side.group}.")
                target[first // side.group : (first + count) // side.group] = part[:: side.group]
            else:
                target[:, first : first + count] = part[:, :: side.group].T

    def write(self, which, first, rows):
        """Quantizes rows [tokens, channels] into the page."""
        self.write_quantized(which, first, quantize(rows, self.pair.side(which)))

    def read_quantized(self, which, first=0, count=None):
        side = self.pair.side(which)
        end = self.page_tokens if count is None else first + count
        token, channel = np.arange(first, end)[:, None], np.arange(self.head_dim[which])[None, :]
        index = (token // side.group, channel) if side.per_channel else (channel // side.group, token)
        scale, minimum = (self._coefficients(which, name)[index] for name in ("scale", "min"))
        return Quantized(self.codes(which)[first:end], scale, minimum)

    def read(self, which, first=0, count=None):
        """dequantize_c1 in f32: [tokens, channels]."""
        return dequantize(self.read_quantized(which, first, count))


def build_page(pair, page_tokens, k_rows, v_rows, dk, dv, profile="vnni"):
    """A page whose first len(k_rows) tokens of K and len(v_rows) of V are quantized and whose other bytes are zero."""
    page = Page(pair, page_tokens, dk, dv, profile)
    for which, rows in (("K", k_rows), ("V", v_rows)):
        if len(rows):
            page.write(which, 0, rows)
    return page.data
