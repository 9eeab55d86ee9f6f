# SPDX-License-Identifier: Apache-2.0
"""KVQCache and attn_implementation="kvq" in transformers, on a tiny Llama with random weights."""

import copy
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, LlamaConfig

import kvq
from kvq import evaluate, lowlevel
from kvq.hf import KVQCache, attention_forward

EIGHT = "k8c32-v8t16/w32,block"
TWO = "k2c32-v2t16/w32,sliding"
# Largest differences of the tiny model's logits (rms 0.2), measured: 8 bits move them by 4e-4, 4 bits by 1e-2, 2 bits
# by 6e-2; f32 sums in another order by 2e-7; such a sum that flips one 2-bit code by 1e-3.
NEAR = 2e-3
ROUNDING = 1e-5
FLIP = 5e-3


@pytest.fixture(scope="module")
def model():
    return evaluate.tiny().model


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


@pytest.fixture
def new_cache(model, context):
    return lambda text=EIGHT, config=None: KVQCache(config or model.config, text, accuracy="full", context=context)


def random_ids(rows, tokens, seed=0):
    return torch.randint(1, 128, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def logits_of(model, cache, ids, cuts=(), mask=None):
    """Logits of all tokens, fed in pieces that end at `cuts`."""
    pieces, start = [], 0
    for end in (*cuts, ids.shape[1]):
        part = None if mask is None else mask[:, :end]
        position = None if mask is None else (part.cumsum(-1) - 1).clamp(min=0)[:, start:end]
        output = model(ids[:, start:end], attention_mask=part, position_ids=position, past_key_values=cache)
        pieces.append(output.logits)
        start = end
    return torch.cat(pieces, dim=1)


def stored(cache):
    """K and V of every row and layer as one list of tensors."""
    result = []
    for row, length in enumerate(cache.lengths):
        for layer in range(len(cache.layers)):
            group = cache.packed.group(layer)
            kind = group.pool.kind
            k, v = (torch.empty(kind.kv_heads, length, d, dtype=cache.packed.dtype) for d in (kind.dk, kind.dv))
            group.cache.read(group.rows[row], group.local[layer], k, v)
            result += [k, v]
    return result


def used(cache):
    """The report without what a step that was taken back has left: memory that was touched."""
    return {name: value for name, value in cache.report().items() if name != "bytes_touched"}


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))


# -- the ordinary way -------------------------------------------------------------------------------------------------


def test_logits_are_near_those_of_an_ordinary_cache(model, new_cache):
    ids = random_ids(1, 150)
    cuts = (100, *range(101, 150))
    expected = logits_of(model, DynamicCache(config=model.config), ids, cuts)
    got = logits_of(model, new_cache(), ids, cuts)
    assert (got - expected).abs().max() < NEAR
    two_bits = logits_of(model, new_cache(TWO), ids, cuts)
    assert (two_bits - expected).abs().max() > 10 * NEAR


def test_how_a_prompt_is_cut_does_not_matter(model, new_cache):
    ids = random_ids(1, 140)
    whole = logits_of(model, new_cache(TWO), ids)
    assert (logits_of(model, new_cache(TWO), ids, (37, 38, 101)) - whole).abs().max() < FLIP


def test_greedy_and_sampling_run_in_generate(model, new_cache):
    ids = random_ids(2, 60)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "pad_token_id": 0}
    reference = model.generate(ids, past_key_values=DynamicCache(config=model.config), do_sample=False, **options)
    greedy = model.generate(ids, past_key_values=new_cache(), do_sample=False, **options)
    assert torch.equal(greedy, reference)
    samples = []
    for _ in range(2):
        torch.manual_seed(3)
        samples.append(model.generate(ids, past_key_values=new_cache(TWO), do_sample=True, **options))
    assert torch.equal(*samples)
    assert samples[0].shape == (2, 72)
    chunked = model.generate(ids, past_key_values=new_cache(), do_sample=False, prefill_chunk_size=16, **options)
    assert torch.equal(chunked, reference)


def test_several_turns_on_one_cache(model, new_cache):
    ids, cache = random_ids(1, 90), new_cache()
    turns = logits_of(model, cache, ids[:, :50])
    assert cache.get_seq_length() == 50 and cache.lengths == [50]
    turns = torch.cat([turns, logits_of(model, cache, ids[:, 50:])], dim=1)
    assert (turns - logits_of(model, DynamicCache(config=model.config), ids)).abs().max() < NEAR
    cache.reset()
    assert cache.get_seq_length() == 0 and cache.lengths == []
    again = logits_of(model, cache, ids[:, :50])
    assert torch.equal(again, turns[:, :50])


def test_a_prepared_cache_takes_any_batch(model, new_cache):
    ids, cache = random_ids(3, 40), new_cache()
    cache.prepare()
    got = logits_of(model, cache, ids)
    assert cache.lengths == [40] * 3 and cache.report()["sequences"] == 3
    assert torch.equal(got, logits_of(model, new_cache(), ids))


def test_memory_grows_with_the_prompt(model, context):
    config = copy.deepcopy(model.config)
    config.max_position_embeddings = 64  # the model itself does not care
    ids, cache = random_ids(1, 700), KVQCache(config, EIGHT, accuracy="full", context=context)
    logits_of(model, cache, ids[:, :100])
    small = cache.report()["blocks_capacity"]
    got = logits_of(model, cache, ids[:, 100:])
    report = cache.report()
    assert report["blocks_capacity"] > small
    assert report["blocks_used"] <= report["blocks_capacity"] <= report["blocks_used"] + 4
    assert report["bytes_touched"] == report["bytes_used"]
    expected = logits_of(model, DynamicCache(config=model.config), ids)[:, 100:]
    assert (got - expected).abs().max() < NEAR


def test_bfloat16(context):
    model = evaluate.tiny(dtype=torch.bfloat16).model
    ids = random_ids(1, 100)
    cache = KVQCache(model.config, EIGHT, accuracy="full", context=context)
    got = logits_of(model, cache, ids, (90, 95))
    expected = logits_of(model, DynamicCache(config=model.config), ids, (90, 95))
    assert got.dtype == torch.bfloat16
    assert stored(cache)[0].dtype == torch.bfloat16
    assert (got - expected).abs().max() < 0.03  # bf16 keeps 8 bits of a fraction; measured 6e-3


def test_other_caches_work_under_the_same_attention(model):
    ids = random_ids(2, 40)
    sdpa = copy.deepcopy(model)
    sdpa.set_attn_implementation("sdpa")
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    for attention_mask in (None, mask):
        expected = sdpa(ids, attention_mask=attention_mask).logits
        assert torch.equal(model(ids, attention_mask=attention_mask, use_cache=False).logits, expected)
        assert torch.equal(model(ids, attention_mask=attention_mask).logits, expected)


def test_name_is_known_whichever_import_comes_first():
    for order in ("import kvq, transformers", "import transformers, kvq"):
        program = (
            f"{order}\nfrom transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as a\n"
            "from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as m\nassert 'kvq' in a and 'kvq' in m"
        )
        subprocess.run([sys.executable, "-c", program], check=True)


def test_import_of_kvq_alone_does_not_import_torch():
    program = "import sys, kvq\nassert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


# -- left padding -----------------------------------------------------------------------------------------------------


def padded_batch(lengths, seed=0):
    width = max(lengths)
    ids, mask = random_ids(len(lengths), width, seed), torch.ones(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, : width - length] = 0
    return ids, mask


def attend(cache, layer, q, k, v, mask):
    """What a model does in one layer."""
    k, v = cache.update(k, v, layer)
    module = SimpleNamespace(training=False, is_causal=True)
    return attention_forward(module, q, k, v, mask, scaling=0.25)[0]


def test_rows_of_a_padded_batch_store_what_they_store_alone(model, new_cache):
    """Given the same K and V. Dequantized values are compared bit for bit: equal values mean equal codes, scales and
    minima, as a code's value is strictly monotonic in it."""
    lengths, width = (91, 40, 128), 128
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(3, heads, width + 3, 16, generator=generator) for heads in (6, 2, 2))
    keep = torch.arange(width + 3) >= torch.tensor([width - length for length in lengths])[:, None]
    causal = torch.ones(width + 3, width + 3, dtype=torch.bool).tril()
    mask = causal[None, None] & keep[:, None, None, :]
    batch, solo = new_cache(TWO), [new_cache(TWO) for _ in lengths]
    for start, end in ((0, width), (width, width + 1), (width + 1, width + 2), (width + 2, width + 3)):
        now = slice(start, end)
        for layer in range(2):
            out = attend(batch, layer, q[:, :, now], k[:, :, now], v[:, :, now], mask[:, :, now, :end])
            for row, length in enumerate(lengths):
                own = slice(max(start, width - length), end)
                alone = attend(solo[row], layer, *(x[row : row + 1, :, own] for x in (q, k, v)), None)
                assert torch.equal(out[row : row + 1, own.start - start :], alone)
                assert not out[row, : own.start - start].any()
    assert batch.lengths == [length + 3 for length in lengths]
    assert batch.get_seq_length() == width + 3
    assert same(stored(batch), [tensor for cache in solo for tensor in stored(cache)])


def test_logits_of_a_padded_batch_are_those_of_its_rows(model, new_cache):
    lengths = (70, 33, 5)
    ids, mask = padded_batch(lengths)
    cuts = (60, 65, 66)
    got = logits_of(model, new_cache(), ids, cuts, mask)
    for row, length in enumerate(lengths):
        alone = logits_of(model, new_cache(), ids[row : row + 1, 70 - length :])
        assert (got[row, 70 - length :] - alone[0]).abs().max() < ROUNDING


def test_padded_generate_equals_the_ordinary_cache(model, new_cache):
    ids, mask = padded_batch((50, 41, 9))
    options = {"attention_mask": mask, "max_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, past_key_values=DynamicCache(config=model.config), **options)
    cache = new_cache()
    assert torch.equal(model.generate(ids, past_key_values=cache, **options), expected)
    assert cache.lengths == [59, 50, 18]


def test_padding_in_a_later_turn_is_stripped_too(model, new_cache):
    ids, mask = padded_batch((60, 60))
    mask[1, 40:45] = 0
    cache = new_cache()
    logits_of(model, cache, ids, (40,), mask)
    assert cache.lengths == [60, 55]


def test_masks_that_are_not_left_padding_are_refused(model, new_cache):
    ids = random_ids(2, 20)
    right = torch.ones_like(ids)
    right[1, 15:] = 0
    cache = new_cache()
    with pytest.raises(kvq.Unsupported, match="row 1 .*padding_side"):
        model(ids, attention_mask=right, past_key_values=cache)
    full = torch.ones(2, 1, 20, 20, dtype=torch.bool)
    with pytest.raises(kvq.Unsupported, match="not causal"):
        model(ids, attention_mask=full, past_key_values=cache)
    with pytest.raises(kvq.Unsupported, match="bool mask"):
        model(ids, attention_mask=torch.zeros(2, 1, 20, 20), past_key_values=cache)
    assert cache.lengths == [] and cache.get_seq_length() == 0
    model(ids, past_key_values=cache)
    changed = torch.ones(2, 21, dtype=torch.long)
    changed[0, 3] = 0
    with pytest.raises(kvq.Unsupported, match="hides a token"):
        model(ids[:, :1], attention_mask=changed, past_key_values=cache)
    assert cache.lengths == [20, 20]


# -- errors leave the cache as it was ---------------------------------------------------------------------------------


def test_nan_is_refused_and_the_cache_stays(model, new_cache):
    cache, generator = new_cache(TWO), torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(1, heads, 50, 16, generator=generator) for heads in (6, 2, 2))
    for layer in range(2):
        attend(cache, layer, q, k, v, None)
    before, report = stored(cache), used(cache)
    bad = v.clone()
    bad[0, 1, 7, 3] = float("nan")
    attend(cache, 0, q, k, v, None)
    with pytest.raises(kvq.BadValue):
        attend(cache, 1, q, k, bad, None)
    assert cache.lengths == [50] and cache.get_seq_length() == 50
    assert used(cache) == report
    assert same(stored(cache), before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in range(2):
            attend(cache, layer, q, k, v, None)
    assert cache.lengths == [100]


def test_a_forward_that_breaks_off_leaves_the_cache(model, new_cache):
    ids, cache = random_ids(1, 80), new_cache(TWO)
    logits_of(model, cache, ids[:, :60])
    before, report = stored(cache), used(cache)

    def fail(*_):
        raise KeyboardInterrupt

    hook = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        model(ids[:, 60:], past_key_values=cache)
    hook.remove()
    assert cache.get_seq_length() == 60
    with pytest.warns(RuntimeWarning, match="after 1 of 2 layers"):
        got = logits_of(model, cache, ids[:, 60:])
    assert (got - logits_of(model, new_cache(TWO), ids)[:, 60:]).abs().max() < FLIP
    assert cache.lengths == [80]
    fresh = new_cache(TWO)
    logits_of(model, fresh, ids[:, :60])
    assert same(stored(fresh), before) and used(fresh) == report


def test_wrong_dtype_device_and_batch(model, new_cache):
    cache = new_cache()
    double = torch.empty(1, 2, 4, 16, dtype=torch.float64)
    with pytest.raises(kvq.Unsupported, match="K is torch.float64 .*torch.bfloat16 or torch.float16"):
        cache.update(double, double, 0)
    elsewhere = torch.empty(1, 2, 4, 16, device="meta")
    with pytest.raises(kvq.Unsupported, match="device meta"):
        cache.update(elsewhere, elsewhere, 0)
    model(random_ids(2, 4), past_key_values=cache)
    with pytest.raises(kvq.InvalidArgument, match="3 rows where the cache holds 2"):
        model(random_ids(3, 4), past_key_values=cache)
    assert cache.lengths == [4, 4]


def test_what_cannot_be_done_is_named(model, new_cache):
    cache = new_cache()
    model(random_ids(1, 4), past_key_values=cache)
    for call, error, word in (
        (lambda: cache.crop(1), kvq.InvalidArgument, "minus the number"),
        (lambda: cache.crop(-5), kvq.InvalidArgument, "more than the 4 tokens"),
        (lambda: cache.select([1]), kvq.InvalidArgument, "rows 0 to 0"),
        (lambda: cache.layers[0].crop(-1), kvq.Unsupported, "cache's own crop"),
        (lambda: cache.layers[0].offload(), kvq.Unsupported, "leave offloading off"),
    ):
        with pytest.raises(error, match=word):
            call()
    assert cache.lengths == [4]
    chunked = LlamaConfig(num_hidden_layers=2, layer_types=["full_attention", "chunked_attention"])
    chunked.attention_chunk_size = 8
    with pytest.raises(kvq.Unsupported, match="chunked_attention.*DynamicCache"):
        KVQCache(chunked)
    with pytest.raises(kvq.InvalidArgument, match="page_tokens is 48"):
        KVQCache(model.config, EIGHT, page_tokens=48, accuracy="full", context=cache.context)
    with pytest.raises(kvq.InvalidArgument, match="kiwi-4.*did you mean kivi-4"):
        new_cache("kiwi-4")
    with pytest.raises(kvq.InvalidArgument, match="prefill is 'cooked'"):
        KVQCache(model.config, EIGHT, prefill="cooked", accuracy="full", context=cache.context)
    module = SimpleNamespace(training=False, is_causal=True)
    k, v = cache.update(*(torch.randn(1, 2, 1, 16) for _ in range(2)), 0)
    with pytest.raises(kvq.FailedPrecondition, match="adds a position bias"):
        attention_forward(module, torch.randn(1, 6, 1, 16), k, v, None, position_bias=torch.zeros(1))
    with pytest.raises(kvq.InvalidArgument, match="softcap = 30.0 where the cache was made for 0.0"):
        attention_forward(module, torch.randn(1, 6, 1, 16), k, v, None, softcap=30.0)


def test_lists_and_files_of_formats(model, context, tmp_path):
    def new(spec, **options):
        return KVQCache(model.config, spec, accuracy="full", context=context, **options)

    two = [EIGHT, "k4c32-v4t16/w32"]
    canonical = [EIGHT, "k4c32-v4t16/w32,block"]
    (tmp_path / "a.json").write_text('{"layers": ["%s", "%s"]}' % tuple(two))
    (tmp_path / "b.txt").write_text("# two layers\n%s\n\n%s  # the last\n" % tuple(two))
    for spec in (two, tmp_path / "a.json", str(tmp_path / "b.txt"), lambda layer, dk, dv: two[layer]):
        cache = new(spec)
        model(random_ids(1, 100), past_key_values=cache)
        assert cache.format == canonical
    assert new("kivi-4", keep_first=4).format == "k4c32-v4t32/w128,keep4,sliding"
    assert new(EIGHT.replace("w32", "w32,keep4"), keep_first=0).format == EIGHT
    for spec, word in (
        (two + two, "4 entries where the model has 2 layers"),
        ([], "list of formats is empty"),
        ([EIGHT, "kivi-9"], "layer 1: .*kivi-9"),
        ([EIGHT, 4], "format of layer 1 is 4"),
        (tmp_path / "none.json", "cannot be read"),
    ):
        with pytest.raises(kvq.InvalidArgument, match=word):
            new(spec)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(kvq.InvalidArgument, match="is not JSON"):
        new(tmp_path / "bad.json")


def test_a_config_of_another_model_is_noticed(model, new_cache):
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    cache = new_cache(config=model.config)  # says "kvq"
    ids = random_ids(1, 80)
    with pytest.warns(UserWarning, match="cannot be attended in place"):
        got = logits_of(other, cache, ids, (50, 60))
    assert cache.lengths == [80] and not cache.is_in_place
    assert (got - logits_of(model, DynamicCache(config=model.config), ids)).abs().max() < NEAR


def test_a_backward_pass_is_refused(model, new_cache):
    ids = random_ids(1, 40)
    with torch.enable_grad():
        logits = model(ids, past_key_values=new_cache()).logits
        assert torch.isfinite(logits).all()
        with pytest.raises(kvq.Unsupported, match="no gradient"):
            logits.sum().backward()
        # Only K has a gradient here, and the cache detaches it.
        q, k, v = torch.randn(1, 6, 5, 16), torch.randn(1, 2, 5, 16, requires_grad=True), torch.randn(1, 2, 5, 16)
        with pytest.raises(kvq.Unsupported, match="no gradient"):
            attend(new_cache(), 0, q, k, v, None).sum().backward()
    assert not model(ids, past_key_values=new_cache()).logits.requires_grad
    model.zero_grad()


@pytest.mark.parametrize("layers", [1, 3])
def test_a_cache_for_another_number_of_layers_is_refused(model, new_cache, layers):
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = layers
    cache = new_cache(config=config)
    with pytest.raises(kvq.InvalidArgument, match=f"model has 2 layers where the cache was made for {layers}"):
        model(random_ids(1, 4), past_key_values=cache)
    assert cache.get_seq_length() == 0
    k = torch.zeros(1, 2, 4, 16)
    with pytest.raises(kvq.InvalidArgument, match=f"layer {layers} does not exist"):
        cache.update(k, k, layers)


def test_load_refuses_states_that_do_not_fit_together(new_cache):
    cache = new_cache()
    eight, nine = (torch.zeros(1, 2, tokens, 16) for tokens in (8, 9))
    for states, word in (
        ([], "has 0 layers"),
        ([(eight, eight), (nine, nine)], r"layer 1 of states has K \[1, 2, 9, 16\]"),
        ([(eight, nine), (eight, eight)], "layer 0 of states"),
        ([(eight[0], eight[0])] * 2, "rows, kv_heads, tokens, d"),
    ):
        with pytest.raises(kvq.InvalidArgument, match=word):
            cache.load(states)
    for mask, word in ((torch.ones(1, 7), r"mask has shape \[1, 7\]"), (torch.tensor([[1] * 7 + [0]]), "pad in front")):
        with pytest.raises(kvq.InvalidArgument, match=word):
            cache.load([(eight, eight)] * 2, mask)
    cache.load([(eight, eight)] * 2)
    assert cache.lengths == [8]


def test_load_of_padded_rows_is_what_the_model_stores(model, new_cache):
    ids, mask = padded_batch((90, 41))
    expected, dense, cache = new_cache(), DynamicCache(config=model.config), new_cache()
    first = logits_of(model, expected, ids, (), mask)
    logits_of(model, dense, ids, (), mask)
    cache.load([(layer.keys, layer.values) for layer in dense.layers], mask)
    assert cache.lengths == expected.lengths == [90, 41]
    longer = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
    position = longer.sum(dim=1, keepdim=True) - 1
    after = [
        model(ids[:, :1], attention_mask=longer, position_ids=position, past_key_values=c).logits
        for c in (expected, cache)
    ]
    assert first.isfinite().all() and (after[0] - after[1]).abs().max() < NEAR


def test_an_empty_cache_takes_another_dtype(model, context):
    half = evaluate.tiny(dtype=torch.bfloat16).model
    cache = KVQCache(half.config, EIGHT, accuracy="full", context=context)
    cache.prepare(torch.float32)
    half(random_ids(1, 4), past_key_values=cache)
    with pytest.raises(kvq.InvalidArgument, match="float32 where the cache holds torch.bfloat16"):
        cache.prepare(torch.float32)
    cache.reset()
    model(random_ids(1, 4), past_key_values=cache)
    assert stored(cache)[0].dtype == torch.float32
    for config_dtype, expected in ((torch.bfloat16, "bf16"), (torch.float16, "f16"), (None, "f32")):
        config = copy.deepcopy(model.config)
        config.dtype = config_dtype
        prepared = KVQCache(config, EIGHT, accuracy="full", context=context)
        kernels = []
        prepared.prepare(progress=lambda kernel: kernels.append(kernel["name"]))
        assert len(kernels) == 14 and all(f":{expected}:" in name for name in kernels)


def test_a_refused_first_forward_binds_no_batch(model, new_cache):
    cache, right = new_cache(), torch.ones(2, 20, dtype=torch.long)
    right[1, 15:] = 0
    with pytest.raises(kvq.Unsupported):
        model(random_ids(2, 20), attention_mask=right, past_key_values=cache)
    ids = random_ids(3, 20)
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), past_key_values=cache, max_new_tokens=2, pad_token_id=0
    )
    assert output.shape == (3, 22)
    assert cache.lengths == [21] * 3


def test_padding_that_a_later_turn_forgets_or_brings_is_refused(model, new_cache):
    ids, mask = padded_batch((30, 20))
    cache = new_cache()
    model(ids, attention_mask=mask, past_key_values=cache)
    with pytest.raises(kvq.Unsupported, match="shows one that was padding"):
        model(ids[:, :1], past_key_values=cache)
    later = torch.cat([mask, torch.tensor([[1, 1, 1], [1, 0, 1]])], dim=1)
    with pytest.raises(kvq.Unsupported, match="row 1 .*later turn must bring no padding") as refusal:
        model(random_ids(2, 3), attention_mask=later, past_key_values=cache)
    assert "padding_side" not in str(refusal.value)
    assert cache.lengths == [30, 20]


# -- the dense way ----------------------------------------------------------------------------------------------------


def test_other_attention_functions_get_dense_tensors_and_one_warning(model, context):
    dense = copy.deepcopy(model)
    dense.set_attn_implementation("sdpa")
    ids, mask = padded_batch((90, 61))
    cuts = (80, *range(81, 90))
    cache = KVQCache(dense.config, EIGHT, accuracy="full", context=context)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = logits_of(dense, cache, ids, cuts, mask)
    said = [str(warning.message) for warning in caught if "KVQCache" in str(warning.message)]
    assert len(said) == 1 and 'attn_implementation="kvq"' in said[0]
    expected = logits_of(dense, DynamicCache(config=dense.config), ids, cuts, mask)
    for row, length in enumerate((90, 61)):
        assert (got[row, 90 - length :] - expected[row, 90 - length :]).abs().max() < NEAR
    assert cache.lengths == [90, 90]
    report = cache.report()
    assert 0 < report["bytes_used"] < 2 * 90 * 2 * 2 * 32 * 4 + report["tail_bytes_used"]


# -- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, cap", [(EIGHT, 32 + 32 + 32), (TWO, 32 + 32)])
def test_bytes_are_those_of_the_specification(model, new_cache, text, cap):
    cache = new_cache(text)
    logits_of(model, cache, random_ids(2, 300))
    report, config = cache.report(), cache.packed.group(0).cache.config
    page = lowlevel.format_page_bytes(text, 16, 16, config["page_tokens"])
    blocks = 2 * -(-max(lowlevel.format_frontier(text, 300)) // config["page_tokens"])
    tail = config["layers"] * 2 * cap * (16 + 16) * 4  # layers, KV heads, slots, Dk + Dv, sizeof float
    assert report["blocks_used"] == blocks
    assert report["page_bytes_used"] == blocks * config["layers"] * 2 * page
    assert report["tail_bytes_used"] == 2 * tail
    assert report["bytes_used"] == report["page_bytes_used"] + report["tail_bytes_used"]
    assert report["bytes_touched"] == report["bytes_used"]
    reserved = config["blocks"] * config["layers"] * 2 * page + config["sequences"] * tail
    # The caller's memory also holds what aligns its parts.
    assert reserved <= report["bytes_reserved"] <= reserved + 4096


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.untyped_storage().nbytes() // value.element_size())
        return result


def test_decoding_makes_no_dense_tensor_of_the_context(model, new_cache):
    """The largest tensor of a step is one of the model's own (its weights are 128 x 96), with any length of context."""
    tokens = 1500
    cache = new_cache()
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(1, 2, tokens, 16, generator=generator) for _ in range(2))
    cache.load([(k, v)] * 2)
    with LargestTensor() as packed:
        model(random_ids(1, 1), past_key_values=cache)
    assert packed.elements <= 128 * 96 < tokens * 2 * 16
    ordinary = DynamicCache(config=model.config)
    for layer in range(2):
        ordinary.update(k, v, layer)
    with LargestTensor() as dense:
        model(random_ids(1, 1), past_key_values=ordinary)
    assert dense.elements >= tokens * 2 * 16
