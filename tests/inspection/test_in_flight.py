# SPDX-License-Identifier: Apache-2.0
"""Bytes that a warp has asked for when it waits, by counting on a few instructions."""

import pytest
from kvq.inspect import in_flight, sass, steady


def loop_of(*body):
    lines = [*body, "@P0 BRA `(.L_x_0)"]
    code = "".join(f"        /*{16 * i:04x}*/                   {line} ;\n" for i, line in enumerate(lines))
    return steady.steady_loop(sass.parse(f".text.k:\n.L_x_0:\n{code}")["k"])


USE = "FADD R20, R20, R{}"


def test_load_that_is_used_at_once():
    loop = loop_of("LDG.E.128 R4, [R2.64]", USE.format(5), "LDG.E R8, [R2.64+0x200]", USE.format(8))
    # 512 bytes when the first one is waited for, 128 when the second one is.
    assert in_flight.waiting_bytes(loop) == pytest.approx((512 * 512 + 128 * 128) / 640)
    assert in_flight.asked_bytes(loop) == 640


def test_loads_before_their_uses():
    loop = loop_of("LDG.E.64 R4, [R2.64]", "LDG.E.64 R6, [R2.64+0x200]", USE.format(4), USE.format(7))
    assert in_flight.waiting_bytes(loop) == pytest.approx((512 + 256) / 2)


def test_load_for_the_next_iteration():
    """Two loads at once: one of this iteration, one ahead."""
    loop = loop_of(USE.format(4), "LDG.E.128.CONSTANT R4, [R2.64]", USE.format(8), "LDG.E.128.CONSTANT R8, [R2.64]")
    assert in_flight.waiting_bytes(loop) == 1024


def test_register_of_a_vector_and_uniform_registers():
    loop = loop_of("LDG.E.128 R4, desc[UR4][R2.64]", "IADD3 R30, R3, UR7, RZ", "LDG.E.128 R12, [R2.64]", USE.format(7),
                   USE.format(15))
    assert in_flight.waiting_bytes(loop) == pytest.approx((1024 + 512) / 2)


def test_what_is_never_used_is_waited_for_when_it_is_loaded_again():
    assert in_flight.waiting_bytes(loop_of("LDG.E R4, [R2.64]", "FADD R20, R20, R21")) == 128


def test_copies_to_shared_memory_are_not_known():
    assert in_flight.waiting_bytes(loop_of("LDGSTS.E.128 [R9], [R2.64]", "LDG.E R4, [R2.64]", USE.format(4))) is None
    assert in_flight.waiting_bytes(loop_of(USE.format(4))) is None


def test_lines_prefetched_into_the_second_level():
    loop = loop_of("CCTL.E.PF2 [R2+0x1000]", "CCTL.IVALL", "LDG.E R4, [R2.64]", "CCTL.E.PF2 [R2.64]", USE.format(4))
    assert in_flight.prefetched_bytes(loop) == 2 * 32 * 128
