# SPDX-License-Identifier: Apache-2.0
"""Rows of a KVQCache: taken back, forked, selected, saved, shared between threads, learned without a config."""

import copy
import json
import struct
import threading
import warnings

import pytest
import torch
from model_zoo import llama, mistral
from test_generate import FORMATS, Pair, no_gradient, padded  # noqa: F401  (fixtures)

import kvq
from kvq.hf import KVQCache

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pair(context):
    return Pair(context)


def forward(model, cache, ids, mask=None):
    """Logits of the new tokens."""
    if mask is None:
        return model(ids, past_key_values=cache).logits
    position = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return model(ids, attention_mask=mask, position_ids=position, past_key_values=cache).logits


def near(a, b):
    """Sums in another order and another exp move a logit by 1e-5 of the rms; that may flip the rounding of a scale or
    a code of the second layer, measured 3e-4 of the rms over all logits. A token too many or too few: over 5e-2."""
    return (a - b).square().mean().sqrt() < 3e-3 * b.square().mean().sqrt()


# -- taking back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formats", FORMATS.values(), ids=list(FORMATS))
@pytest.mark.parametrize("back", [1, 32, 33, 50, 90, 121])
def test_crop_at_past_and_behind_the_frontier(pair, formats, back):
    """The same tokens are thawed, and what follows sees the same."""
    ids, more = padded((130,))[0], padded((20,), 1)[0]
    cache, oracle = pair.caches(formats)
    forward(pair.model, cache, ids)
    forward(pair.oracle, oracle, ids)
    thawed = cache.crop(-back)
    oracle.crop(-back)
    assert thawed == cache.report()["thawed_tokens"] == oracle.thawed
    assert back > 32 or thawed == 0
    assert cache.get_seq_length() == 130 - back and cache.lengths == oracle.lengths
    assert near(forward(pair.model, cache, more), forward(pair.oracle, oracle, more))


def test_crop_thaws_once(pair):
    cache, _ = pair.caches(FORMATS["block"])
    forward(pair.model, cache, padded((200,))[0])
    assert cache.crop(-150) == 50 - 32  # a cut in the middle of a group of which only codes are left
    assert cache.crop(0) == 0 and cache.crop(-1) == 0
    assert cache.report()["thawed_tokens"] == 18


def test_crop_takes_padding_back_too(pair):
    ids, mask = padded((60, 4))
    caches = pair.caches(FORMATS["block"])
    for model, cache in zip((pair.model, pair.oracle), caches):
        forward(model, cache, ids, mask)
        cache.crop(-20)
    assert caches[0].lengths == caches[1].lengths == [40, 0]
    after = torch.cat([mask[:, :40], torch.ones(2, 3, dtype=torch.long)], dim=1)
    a, b = (forward(model, cache, ids[:, 57:], after) for model, cache in zip((pair.model, pair.oracle), caches))
    assert near(a, b)


# -- forks and rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formats", FORMATS.values(), ids=list(FORMATS))
@pytest.mark.parametrize("fork", [KVQCache.fork, copy.deepcopy], ids=["fork", "deepcopy"])
def test_a_prompt_is_prefilled_once_for_several_answers(pair, formats, fork):
    prompt, ways = padded((300,))[0], [padded((40,), seed)[0] for seed in (1, 2)]
    cache, _ = pair.caches(formats)
    forward(pair.model, cache, prompt)
    alone = cache.report()
    forks = [fork(cache) for _ in ways]
    report = cache.report()
    assert report["blocks_used"] == alone["blocks_used"] and report["sequences"] == 3
    for way, forked in zip(ways, forks):
        expected, _ = pair.caches(formats)
        forward(pair.model, expected, prompt)
        assert torch.equal(forward(pair.model, forked, way), forward(pair.model, expected, way))
        assert forked.lengths == [340] and cache.lengths == [300]
    del forks, forked
    report = cache.report()
    assert report["sequences"] == 1 and report["bytes_used"] == alone["bytes_used"]


@pytest.mark.parametrize("formats", FORMATS.values(), ids=list(FORMATS))
def test_rows_are_reordered_repeated_and_left_out(pair, formats):
    ids, mask = padded((90, 40, 71))
    caches = pair.caches(formats)
    for model, cache in zip((pair.model, pair.oracle), caches):
        forward(model, cache, ids, mask)
    kept = mask
    for change, rows in (
        (lambda cache: cache.reorder_cache(torch.tensor([2, 2, 0])), [2, 2, 0]),
        (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
        (lambda cache: cache.batch_select_indices(torch.tensor([5, 0, 1])), [5, 0, 1]),
    ):
        kept = torch.cat([kept[rows], torch.ones(len(rows), 5, dtype=torch.long)], dim=1)
        more = padded((5,) * len(rows), len(rows))[0]
        logits = []
        for model, cache in zip((pair.model, pair.oracle), caches):
            change(cache)
            logits.append(forward(model, cache, more, kept))
        assert near(*logits)
        assert caches[0].lengths == caches[1].lengths == kept.sum(dim=1).tolist()


def test_memory_of_the_dead_is_given_back(pair):
    cache, _ = pair.caches(FORMATS["block"])
    forward(pair.model, cache, padded((200, 200))[0])
    used = cache.report()["bytes_used"]
    for _ in range(3):
        cache.select([0, 0, 1, 1])
        forward(pair.model, cache, padded((3,) * 4)[0])
        cache.select([0, 2])
        cache.crop(-3)
    assert cache.report()["bytes_used"] == used


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formats", FORMATS.values(), ids=list(FORMATS))
def test_a_saved_cache_goes_on_where_it_was(pair, formats, tmp_path):
    ids, mask = padded((130, 45))
    cache, _ = pair.caches(formats)
    forward(pair.model, cache, ids, mask)
    cache.crop(-2)
    mask = torch.cat([mask[:, :-2], torch.ones(2, 4, dtype=torch.long)], dim=1)
    assert cache.save(tmp_path / "a.kvq") == (tmp_path / "a.kvq").stat().st_size
    opened = KVQCache.open(tmp_path / "a.kvq", pair.model.config, accuracy="full", context=pair.context)
    assert opened.lengths == cache.lengths and opened.format == cache.format
    assert opened.report()["bytes_used"] == cache.report()["bytes_used"]
    assert torch.equal(*(forward(pair.model, c, ids[:, -4:], mask) for c in (cache, opened)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.kvq"]  # no temporary file is left


def test_files_that_are_not_whole_are_refused(pair, tmp_path):
    cache, _ = pair.caches(FORMATS["block"])
    forward(pair.model, cache, padded((100,))[0])
    path, damaged = tmp_path / "a.kvq", tmp_path / "b.kvq"
    cache.save(path)
    data = path.read_bytes()
    header = 52 + struct.unpack_from("<Q", data, 12)[0]

    def refused(content, word):
        damaged.write_bytes(content)
        with pytest.raises(kvq.Corrupt, match=word):
            KVQCache.open(damaged, pair.model.config, context=pair.context)

    for length in (0, 7, 51, 60, header - 1):
        refused(data[:length], "cut short")
    for length in (header, header + 100, len(data) - 1):
        refused(data[:length], "bytes where .* were written")
    refused(data + b"x", "bytes where .* were written")
    refused(b"GGUF" + data[4:], "not a file that KVQCache.save wrote")
    refused(data[:8] + struct.pack("<I", 2) + data[12:], "has version 2 where this kvq reads version 1")
    for place in (20, 60, header - 1):
        refused(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], "damaged")
    for place in (header + 20, len(data) - 5):
        refused(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], "checksum")
    assert json.loads(data[52:header])["formats"] == [FORMATS["block"]] * 2


def test_the_cache_of_another_model_is_refused(pair, tmp_path):
    cache, _ = pair.caches(FORMATS["block"])
    with pytest.raises(kvq.FailedPrecondition, match="nothing to save"):
        cache.save(tmp_path / "a.kvq")
    forward(pair.model, cache, padded((100,))[0])
    cache.save(tmp_path / "a.kvq")
    for changes, word in (({"num_hidden_layers": 3}, "3 layers"), ({"vocab_size": 256}, "another model .vocab_size 128")):
        config = copy.deepcopy(pair.model.config)
        for name, value in changes.items():
            setattr(config, name, value)
        with pytest.raises(kvq.InvalidArgument, match=word):
            KVQCache.open(tmp_path / "a.kvq", config, context=pair.context)
    with pytest.raises(FileNotFoundError):
        KVQCache.open(tmp_path / "b.kvq", pair.model.config)
    with pytest.raises(FileNotFoundError):
        cache.save(tmp_path / "none" / "a.kvq")


# -- two at once ------------------------------------------------------------------------------------------------------


def test_a_second_forward_while_one_runs_is_refused(pair):
    cache, _ = pair.caches(FORMATS["block"])
    ids = padded((40,))[0]
    forward(pair.model, cache, ids)
    inside, done, errors = threading.Event(), threading.Event(), []

    def wait(*_):
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            assert done.wait(30)

    def run():
        with torch.no_grad():
            errors.append(forward(pair.model, cache, ids))

    hook = pair.model.model.layers[1].register_forward_pre_hook(wait)
    thread = threading.Thread(target=run)
    thread.start()
    assert inside.wait(30)
    with pytest.raises(kvq.FailedPrecondition, match="forward of another thread"):
        forward(pair.model, cache, ids)
    for call in (cache.fork, lambda: cache.crop(-1), lambda: cache.select([0, 0])):
        with pytest.raises(kvq.FailedPrecondition, match="while a forward runs"):
            call()
    done.set()
    thread.join()
    hook.remove()
    assert cache.lengths == [80]
    expected, _ = pair.caches(FORMATS["block"])
    forward(pair.model, expected, ids)
    assert torch.equal(errors[0], forward(pair.model, expected, ids))


def test_generate_calls_that_take_turns_on_one_cache_are_refused(pair):
    """The first one's next token comes at a position that is taken."""
    cache, _ = pair.caches(FORMATS["block"])
    ids = padded((40,))[0]

    class Meddle:
        steps = 0

        def put(self, _):
            self.steps += 1
            if self.steps == 3:
                forward(pair.model, cache, ids[:, :2], torch.ones(1, cache.get_seq_length() + 2, dtype=torch.long))

        def end(self):
            pass

    with pytest.raises(kvq.FailedPrecondition, match="let one generate.. end before another"):
        pair.model.generate(
            ids, attention_mask=torch.ones_like(ids), past_key_values=cache, streamer=Meddle(), max_new_tokens=9,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip


# -- without a config -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formats", [FORMATS["sliding"], FORMATS["per layer"]], ids=["one", "per layer"])
def test_a_cache_without_a_config_learns_the_model(pair, formats):
    ids, mask = padded((70, 31))
    expected, _ = pair.caches(formats)
    unknown = KVQCache(None, formats, accuracy="full", context=pair.context)
    for start, end in ((0, 60), (60, 61), (61, 70)):
        a, b = (forward(pair.model, c, ids[:, start:end], mask[:, :end]) for c in (expected, unknown))
        assert torch.equal(a, b)
    assert unknown.lengths == [70, 31] and unknown.format == expected.format
    dense = copy.deepcopy(pair.model)
    dense.set_attn_implementation("sdpa")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        caches = [KVQCache(config, formats, accuracy="full", context=pair.context) for config in (dense.config, None)]
        for start, end in ((0, 60), (60, 61), (61, 70)):
            a, b = (forward(dense, c, ids[:, start:end], mask[:, :end]) for c in caches)
            assert torch.equal(a, b)
    assert sum("KVQCache" in str(warning.message) for warning in caught) == 2  # once for each cache
    assert caches[1].lengths == [70, 70]
    with pytest.raises(kvq.InvalidArgument, match="3 entries where the model has 2"):
        forward(pair.model, KVQCache(None, [FORMATS["block"]] * 3, accuracy="full", context=pair.context), ids)


# -- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [30, 700])
def test_sliding_layers_never_hold_more_than_their_window(context, tokens):
    """Pages behind the window are dropped: after a long prompt, and while decoding (format-spec window_c2)."""
    model = mistral()
    model.set_attn_implementation("kvq")
    cache = KVQCache(model.config, "k4c32-v4t16/w32,block", accuracy="full", context=context)
    forward(model, cache, padded((tokens,))[0])
    cap, page, window = 96, 64, 40
    most = -(-(max(cap, window) + 63) // page) + 1
    for step in range(200):
        assert cache.report()["blocks_used"] <= most * len(cache.packed.groups)
        forward(model, cache, padded((1,), step)[0])
    report = cache.report()
    assert report["bytes_touched"] <= 2 * most * report["page_bytes_used"] / report["blocks_used"] + report["tail_bytes_used"]
    with pytest.raises(kvq.FailedPrecondition, match="dropped.* tokens can be taken back"):
        cache.crop(-150)
    assert cache.lengths == [tokens + 200]


def test_a_crop_that_one_group_refuses_changes_no_group(context):
    """Both layers slide. The first could go back to 3 tokens, all of which it keeps; the second dropped what it needs."""
    model = mistral()
    model.set_attn_implementation("kvq")
    cache = KVQCache(model.config, ["k4c32-v4t16/w32,keep4,block", "k4c32-v4t16/w32,block"], accuracy="full", context=context)
    ids = padded((300,))[0]
    forward(model, cache, ids)
    before = cache.fork()
    with pytest.raises(kvq.FailedPrecondition, match="were dropped"):
        cache.crop(-297)
    assert cache.lengths == [300]
    assert torch.equal(*(forward(model, c, ids[:, :5]) for c in (before, cache)))
    cache.crop(-305)
    assert cache.get_seq_length() == 0


# -- compiled ---------------------------------------------------------------------------------------------------------


def test_a_compiled_model_does_not_recompile_with_every_token(context):
    """The cache's lengths stay outside of the graphs: after the first steps nothing is compiled any more."""
    from torch._dynamo.utils import counters

    model = llama(head_dim=32)
    model.set_attn_implementation("kvq")
    ids = padded((40,))[0]
    plain = KVQCache(model.config, FORMATS["block"], accuracy="full", context=context)
    expected = [forward(model, plain, ids)] + [forward(model, plain, ids[:, t : t + 1]) for t in range(12)]
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(model, backend="eager")
    cache = KVQCache(model.config, FORMATS["block"], accuracy="full", context=context)
    found, graphs = [forward(compiled, cache, ids)], []
    for t in range(12):
        found.append(forward(compiled, cache, ids[:, t : t + 1]))
        graphs.append(counters["stats"]["unique_graphs"])
    assert all(near(a, b) for a, b in zip(found, expected))
    assert graphs[-1] == graphs[3], graphs
    assert cache.lengths == [52]
