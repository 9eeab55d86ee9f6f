# SPDX-License-Identifier: Apache-2.0
"""Every way in which generate() uses a cache, token for token the same as the oracle's model of a cache.

The oracle (kvq_oracle.hf_cache) is dense, in NumPy and PyTorch, and written from the specification alone. Formats have
few bits, so that a token stored wrongly, twice or not at all changes what is generated.
"""

import copy

import pytest
import torch
from kvq_oracle import hf_cache
from kvq_oracle.hf_cache import OracleCache
from model_zoo import llama

from kvq.hf import KVQCache

FORMATS = {
    "block": "k2c32-v2t16/w32,block",
    "sliding": "k2c32-v2t16/w32,sliding",
    "flush": "k4c32-v2t16/w32,flush",
    "keep": "k2c32-v2t16/w32,keep5,block",
    "per layer": ["k4c32-v2t16/w32,sliding", "k2c32-v4t16/w40,block"],
}
OPTIONS = dict(do_sample=False, max_new_tokens=40, pad_token_id=0)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


class Pair:
    """The same model under kvq's attention and under the oracle's."""

    def __init__(self, context, **changes):
        self.context = context
        self.model = llama(**({"head_dim": 32, "initializer_range": 0.3} | changes))
        self.oracle = copy.deepcopy(self.model)
        self.model.set_attn_implementation("kvq")
        self.oracle.set_attn_implementation(hf_cache.NAME)

    def caches(self, formats, prefill="stored", **options):
        return (
            KVQCache(self.model.config, formats, prefill=prefill, accuracy="full", context=self.context, **options),
            OracleCache(self.oracle.config, formats, prefill=prefill),
        )

    def generate(self, formats, ids, mask=None, prefill="stored", **options):
        """(tokens of the product, of the oracle, the two caches)."""
        options = OPTIONS | options
        caches = self.caches(formats, prefill)
        mask = torch.ones_like(ids) if mask is None else mask
        found = []
        for model, cache in zip((self.model, self.oracle), caches):
            torch.manual_seed(0)
            found.append(model.generate(ids, attention_mask=mask, past_key_values=cache, **options))
        return *found, *caches


@pytest.fixture(scope="module")
def pair(context):
    return Pair(context)


def padded(lengths, seed=0):
    width = max(lengths)
    ids = torch.randint(1, 128, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


def check(found, lengths=None):
    got, expected, cache, oracle = found
    assert torch.equal(got, expected)
    assert cache.lengths == oracle.lengths
    assert cache.report()["thawed_tokens"] == oracle.thawed
    if lengths is not None:
        assert cache.lengths == lengths


# -- the ways of generate() -------------------------------------------------------------------------------------------

WAYS = {
    "greedy": {},
    "sampling": dict(do_sample=True, temperature=0.7),
    "beams": dict(num_beams=4),
    "beams, several returned": dict(num_beams=4, num_return_sequences=3),
    "sampled beams": dict(do_sample=True, num_beams=3),
    "several returned": dict(do_sample=True, num_return_sequences=3),
    "prefill in chunks": dict(prefill_chunk_size=8),
}


@pytest.mark.parametrize("formats", FORMATS.values(), ids=list(FORMATS))
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_padded_batches(pair, way, formats):
    check(pair.generate(formats, *padded((70, 31, 9)), **way))


@pytest.mark.parametrize("formats", FORMATS.values(), ids=list(FORMATS))
def test_prompt_lookup(pair, formats):
    """What is proposed and refused leaves no trace: the tokens are those of greedy decoding, and nothing is thawed."""
    ids = padded((35,))[0].repeat(1, 2)
    found = pair.generate(formats, ids, prompt_lookup_num_tokens=6)
    check(found)
    assert found[2].report()["thawed_tokens"] == 0
    assert torch.equal(found[0], pair.generate(formats, ids)[0])


@pytest.mark.parametrize("formats", FORMATS.values(), ids=list(FORMATS))
def test_assisted_generation(pair, formats):
    """The assistant agrees now and then: rows are taken back by any number from 0 to all that was proposed."""
    assistant = copy.deepcopy(pair.oracle)
    assistant.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(1)
    for weight in assistant.parameters():
        weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    ids = padded((50,))[0]
    found = pair.generate(formats, ids, assistant_model=assistant, max_new_tokens=60)
    check(found)
    assert torch.equal(found[0], pair.generate(formats, ids, max_new_tokens=60)[0])


def test_an_assistant_with_a_cache_in_place(pair):
    assistant = copy.deepcopy(pair.model)
    check(pair.generate(FORMATS["block"], padded((50,))[0], assistant_model=assistant))


@pytest.mark.parametrize("rows", range(1, 17))
def test_batches_of_any_size(pair, rows):
    lengths = [20 + 7 * row % 60 for row in range(rows)]
    found = pair.generate(FORMATS["block"], *padded(lengths, rows), max_new_tokens=20)
    check(found, [length + 19 for length in lengths])


@pytest.mark.parametrize("formats", FORMATS.values(), ids=list(FORMATS))
def test_several_turns_of_a_chat_on_one_cache(pair, formats):
    caches = pair.caches(formats)
    ids, mask = padded((40, 25))
    turns = [ids, ids]
    for turn in range(3):
        grown = []
        for model, cache, so_far in zip((pair.model, pair.oracle), caches, turns):
            whole = torch.ones(2, so_far.shape[1], dtype=torch.long)
            whole[:, : mask.shape[1]] = mask
            said = model.generate(so_far, attention_mask=whole, past_key_values=cache, **OPTIONS | {"max_new_tokens": 15})
            grown.append(torch.cat([said, padded((9, 9), turn + 1)[0]], dim=1))
        assert torch.equal(*grown)
        turns = grown
    assert caches[0].lengths == caches[1].lengths


def test_without_a_cache(pair):
    ids, mask = padded((30, 20))
    options = OPTIONS | dict(attention_mask=mask, use_cache=False, max_new_tokens=10)
    assert torch.equal(pair.model.generate(ids, **options), pair.oracle.generate(ids, **options))


@pytest.mark.parametrize("prefill", ["stored", "raw"])
@pytest.mark.parametrize("formats", FORMATS.values(), ids=list(FORMATS))
def test_prefill_as_asked(pair, formats, prefill):
    """In one piece and in chunks; `stored` does not depend on the cut (prefill_c1), `raw` does (prefill_c2)."""
    ids, mask = padded((90, 61))
    whole = pair.generate(formats, ids, mask, prefill)
    chunks = pair.generate(formats, ids, mask, prefill, prefill_chunk_size=24)
    check(whole)
    check(chunks)
    if prefill == "stored":
        assert torch.equal(whole[0], chunks[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(context, dtype):
    """Teacher-forced, 8-bit codes: rounding to 8 or 11 bits in every layer may flip a near-tie of a token or a code."""
    pair = Pair(context)
    ids, mask = padded((90, 61))
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    for model in (pair.model, pair.oracle):
        model.to(dtype)
    found = []
    for model, cache in zip((pair.model, pair.oracle), pair.caches("k8c32-v8t16/w32,sliding")):
        found.append(model(ids, attention_mask=mask, position_ids=position, past_key_values=cache).logits.float())
        assert found[-1].isfinite().all()
    scale = found[1][mask.bool()].square().mean().sqrt()
    difference = (found[0] - found[1])[mask.bool()].square().mean().sqrt() / scale
    # Half an ulp of the type, in each of the some ten roundings on the way of a value.
    assert difference < 10 * (2**-8 if dtype == torch.bfloat16 else 2**-11)


# -- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [64, 80, 96, 128, 192, 256])
def test_head_sizes(context, d):
    pair = Pair(context, head_dim=d)
    check(pair.generate("k2c32-v2t16/w32,sliding", *padded((50, 20)), max_new_tokens=24))


@pytest.mark.parametrize("ratio", range(1, 17))
def test_group_ratios(context, ratio):
    pair = Pair(context, hidden_size=16 * ratio, num_attention_heads=ratio, num_key_value_heads=1, head_dim=16)
    check(pair.generate("k4c32-v4t16/w32,block", *padded((50, 20)), max_new_tokens=16))
