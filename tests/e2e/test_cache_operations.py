# SPDX-License-Identifier: Apache-2.0
"""Random sequences of every cache operation, against the model of a cache (twins.py); a failure is shrunk.

2,000 of them, with `--fast` a tenth. A failure prints the operations, in the form of OPERATIONS, and a
`@reproduce_failure` blob that brings it back.
"""

import math
import zlib

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from twins import Case, Twins

import kvq

CASES = [
    Case("k4c32-v4t16/w0,block", 32, 1, 2, 1, 16, 16, "f32"),
    Case("k8c64-v2c32/w17,block", 0, 1, 2, 2, 16, 16, "f16"),
    Case("k4t16-v8t32/w45,keep5,block", 0, 1, 3, 1, 16, 32, "f32"),
    Case("k3c32-v3t16/w32,sliding", 32, 1, 2, 1, 16, 16, "f32"),
    Case("k3th-v4c64/w0,keep3,block", 0, 1, 2, 1, 32, 16, "f32"),
    Case("k4c128-v2t16/w0,keep20,block", 0, 2, 1, 1, 16, 16, "bf16"),
    Case("k2c32-v2t16/w32,sliding", 32, 1, 2, 1, 16, 16, "f32"),
    Case("k4c32-v8t16/w64,keep16,sliding", 0, 1, 2, 1, 32, 16, "bf16"),
    Case("k4c32-v4t32/w32,flush", 64, 1, 1, 1, 16, 32, "f32"),
    Case("k4t16-v4t16/w5,flush", 32, 1, 2, 2, 16, 16, "f16"),
    Case("k2c32-v4t16/w0,block", 32, 1, 2, 1, 16, 16, "f32", attention_window=40),
    Case("k4c64-v4c64/w50,keep3,block", 0, 1, 2, 1, 16, 16, "bf16", attention_window=17, score_cap=2.0),
    Case("k4c32-v4t16/w32,sliding", 32, 2, 2, 1, 16, 16, "f16", attention_window=24, sinks=True),
    Case("k8t16-v8c32/w64,keep3,flush", 0, 1, 4, 1, 16, 16, "f32", attention_window=50, score_cap=1.5, sinks=True),
    Case("k4c32-v4t16/w32,sliding", 0, 1, 3, 1, 16, 16, "f32", accuracy="normal"),
    Case("k8t16-v8t16/w20,keep5,flush", 0, 1, 2, 1, 32, 16, "bf16", accuracy="fast"),
]
SEQUENCES = 3000
EVERYTHING = {
    "committed", "aborted", "bad value", "forward", "attend", "raw", "plan refused", "fork", "fork refused", "restore",
    "damage", "crop", "crop beyond the length",
}  # fmt: skip
LONGEST = 520  # tokens of a sequence: it is not the length that finds mistakes, and reading all of it takes time

which = st.integers(0, 4)
tokens = st.one_of(st.sampled_from([1, 0, 2, 31, 32, 33, 64]), st.integers(1, 100))
# How many tokens are taken back (below 0: more than there are), or how many are left.
back = st.one_of(
    st.tuples(st.just("back"), st.integers(0, 40)), st.tuples(st.just("left"), st.integers(0, LONGEST)),
    st.tuples(st.just("left"), st.integers(50, LONGEST)), st.tuples(st.just("back"), st.integers(-2, 1)),
)  # fmt: skip
start = st.one_of(st.integers(0, 70), st.integers(100, 450))  # tokens of the first sequence

# A number names one of the live sequences, whatever it is.
OPERATIONS = {
    "add": st.tuples(),
    "remove": st.tuples(which),
    "grow": st.tuples(st.integers(1, 5), st.integers(0, 1)),
    # Sequences and how many tokens each gets, columns of padding, where the padding is, how long the step lives.
    "step": st.tuples(
        st.lists(st.tuples(which, tokens), min_size=1, max_size=3), st.integers(0, 2), st.booleans(),
        st.sampled_from(["commit", "commit", "commit", "abort", "break off"]),
        st.booleans(), st.sampled_from([False, False, False, True]),
    ),
    "raw": st.tuples(st.lists(st.tuples(which, tokens), min_size=1, max_size=3), st.sampled_from(["commit", "abort"])),
    "fork": st.tuples(which),
    "crop": st.tuples(which, back),
    "restore": st.tuples(which),
    "damage": st.tuples(which, st.integers(0, 10**6), st.booleans()),
    "select": st.tuples(st.lists(which, min_size=1, max_size=3)),
}  # fmt: skip
OFTEN = ["step"] * 4 + ["crop"] * 4 + ["fork"] * 2 + ["raw", "restore", "select", "add", "grow", "remove", "damage"]
operations = st.lists(
    st.sampled_from(OFTEN).flatmap(lambda name: st.tuples(st.just(name), OPERATIONS[name])), min_size=3, max_size=16
)


class Life:
    """Tells the twins what the operations say; a number names one of the live sequences, whatever it is."""

    def __init__(self, twins):
        self.twins = twins

    def sequence(self, number):
        return self.twins.live[number % len(self.twins.live)]

    def chosen(self, wanted):
        """Sequences without repetition, short enough to grow, and their counts."""
        counts = {}
        for number, count in wanted:
            sequence = self.sequence(number)
            if self.twins.model.length(sequence) + count <= LONGEST:
                counts.setdefault(sequence, count)
        return list(counts), list(counts.values())

    def add(self):
        self.twins.add()

    def remove(self, number):
        self.twins.remove(self.sequence(number))

    def grow(self, blocks, sequences):
        self.twins.grow(blocks, sequences)

    def step(self, wanted, padding, leading, ends, apart, bad):
        chosen, counts = self.chosen(wanted)
        if chosen:
            firsts = None if leading else [0] * len(chosen)
            layers = self.twins.case.layers - (ends == "break off")
            self.twins.step(chosen, counts, padding, firsts, layers, ends == "commit", apart, bad)

    def raw(self, wanted, ends):
        chosen, counts = self.chosen(wanted)
        if chosen:
            self.twins.step(chosen, counts, commits=ends == "commit", raw=True)

    def fork(self, number):
        self.twins.fork(self.sequence(number))

    def crop(self, number, to):
        sequence, (way, count) = self.sequence(number), to
        length = self.twins.model.length(sequence)
        self.twins.crop(sequence, max(0, length - count) if way == "back" else count % (length + 1))

    def restore(self, number):
        self.twins.restore(self.sequence(number))

    def damage(self, number, place, cut):
        self.twins.damaged_restore(self.sequence(number), place, cut)

    def select(self, numbers):
        self.twins.select([self.sequence(number) for number in numbers])

    def live(self, start, operations):
        twins = self.twins
        sequence = twins.add()
        twins.step([sequence], [start])
        twins.check()
        for name, arguments in operations:
            if not twins.live:
                twins.add()
            getattr(self, name)(*arguments)
            twins.check()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operations_are_the_models(context, case, pytestconfig):
    fast = pytestconfig.getoption("--fast")
    share = SEQUENCES // 10 if fast else SEQUENCES
    examples = math.ceil(share / len(CASES))
    lived, seen = 0, set()

    @settings(max_examples=examples, print_blob=True, suppress_health_check=list(HealthCheck))
    @seed(zlib.crc32(str(case).encode()))
    @given(st.integers(1, 700), st.integers(2, 5), start, operations)
    def life(pool, slots, start, operations):
        nonlocal lived
        twins = Twins(context, case, zlib.crc32(repr(operations).encode()), 1, slots)
        twins.grow(pool // twins.model.page_tokens, 0)
        Life(twins).live(start, operations)
        lived += 1
        seen.update(twins.seen)

    life()
    assert lived >= examples
    assert seen >= {"committed", "fork", "crop"}
    if not fast and case.accuracy == "full":  # the other classes differ in their answers alone
        if case.attention_window:
            # There is seldom anything to thaw that is not dropped, and a few blocks are always enough.
            assert seen >= EVERYTHING - {"plan refused"} | {"crop behind dropped pages"}
        else:
            # Where u is 1 nothing is cut through.
            assert seen >= EVERYTHING
            assert "crop that thaws" in seen or case.format == "k4t16-v4t16/w5,flush"


def test_snapshot_c1_restores_into_its_own_sort_of_cache_alone(context):
    """One property differs at a time: refused by name, and nothing is left behind."""
    own = dict(
        format="k4c32-v4t16/w0,block", page_tokens=64, layers=1, q_heads=2, kv_heads=1, dk=16, dv=16, dtype="f32"
    )
    twins = Twins(context, Case(**own), 0, blocks=8)
    sequence = twins.add()
    twins.step([sequence], [100])
    data = twins.cache.snapshot(twins.product[sequence])
    for other in (
        dict(format="k4c32-v4t16/w32,block"), dict(format="k8c32-v4t16/w0,block"),
        dict(format="k4c32-v4t16/w0,keep1,block"),
        dict(page_tokens=32), dict(layers=2), dict(kv_heads=2), dict(dk=32), dict(dv=32), dict(dtype="f16"),
        dict(attention_window=64),
    ):  # fmt: skip
        stranger = Twins(context, Case(**{**own, **other}), 0, blocks=8)
        with pytest.raises(kvq.InvalidArgument):
            stranger.cache.restore(data)
        stranger.check()
        assert stranger.cache.report()["sequences"] == 0
    twin = Twins(context, Case(**own), 0, blocks=1)
    with pytest.raises(kvq.PoolFull):
        twin.cache.restore(data[:])
    twin.check()


@pytest.mark.parametrize("version", [0, 2, 255])
def test_snapshot_c2_other_versions_are_refused(context, version):
    twins = Twins(context, CASES[0], 0, blocks=8)
    sequence = twins.add()
    twins.step([sequence], [70])
    data = bytearray(twins.cache.snapshot(twins.product[sequence]))
    assert data[:7] == b"KVQSNAP"
    at = data.index(1, 7)
    assert at < 12  # the version, whatever its width and byte order are
    data[at] = version
    with pytest.raises(kvq.Corrupt):
        twins.cache.restore(bytes(data))
    twins.check()
