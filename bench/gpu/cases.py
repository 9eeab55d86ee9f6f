# SPDX-License-Identifier: Apache-2.0
"""What the suite `nvidia` inspects: requests for attend kernels, and the targets that they are compiled for."""
from dataclasses import dataclass

TARGETS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
BITS, GROUPS = (2, 4, 8), (32, 128)
HEAD_DIM, RATIO, PAGE, ROWS = 128, 4, 128, 8
# What times are predicted for: a step at 32k tokens of 8 KV heads.
PREDICTED_ELEMENTS = 32768 * 8 * 2 * HEAD_DIM


@dataclass(frozen=True)
class Case:
    format: str

    @property
    def request(self):
        return (f"attend:{self.format}:mma:p{PAGE}:dk{HEAD_DIM}:dv{HEAD_DIM}:g{RATIO}:f16:rows{ROWS}"
                ":lag0:win0:cap0:exact")


CASES = tuple(Case(f"k{bits}c{group}-v{bits}t{group}") for group in GROUPS for bits in BITS)
