# SPDX-License-Identifier: Apache-2.0
"""Accuracy classes through a whole model: generate() in each against the oracle's logits, what a class leaves alone,
and how a user asks for one."""

import copy

import pytest
import torch
from kvq_oracle import hf_cache
from kvq_oracle.hf_cache import OracleCache
from model_zoo import llama

import kvq
import tolerances
from kvq.compat import kvq_package
from kvq.hf import KVQCache
from kvq.lowlevel import ACCURACY_CLASSES, DEFAULT_ACCURACY

FORMATS = {"k8t32-v8t32/w32,flush": 8, "k4c32-v4t32/w32,block": 4, "k2c32-v2t32/w32,sliding": 2}
STEPS = 24


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models():
    """The same weights under kvq's attention and under the oracle's."""
    model = llama(head_dim=64, initializer_range=0.3)
    oracle = copy.deepcopy(model)
    model.set_attn_implementation("kvq")
    oracle.set_attn_implementation(hf_cache.NAME)
    return model, oracle


@pytest.fixture(scope="module")
def prompt():
    return torch.randint(1, 128, (2, 150), generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def logits_of(model, cache, ids):
    """Of the prompt's last token and of `STEPS` tokens more, each fed alone: the same tokens to every cache."""
    found = [model(ids[:, :-STEPS], past_key_values=cache).logits[:, -1:]]
    found += [model(ids[:, -STEPS + i : ids.shape[1] - STEPS + i + 1], past_key_values=cache).logits
              for i in range(STEPS)]  # fmt: skip
    return torch.cat(found, dim=1)


@pytest.fixture(scope="module")
def expected(models, prompt):
    """By format: the tokens that the oracle generates, its logits over them, and how far full precision is from
    these."""
    model, oracle = models
    found = {}
    with torch.no_grad():
        for text in FORMATS:
            ids = oracle.generate(prompt, past_key_values=OracleCache(oracle.config, text), do_sample=False,
                                  max_new_tokens=STEPS, pad_token_id=0)  # fmt: skip
            logits = logits_of(oracle, OracleCache(oracle.config, text), ids)
            full = oracle(ids, use_cache=False).logits[:, -STEPS - 1 :]
            found[text] = ids, logits, tolerances.relative_rms(logits, full)
    return found


@pytest.mark.parametrize("accuracy", ACCURACY_CLASSES)
@pytest.mark.parametrize("text", FORMATS)
def test_logits_are_the_oracles_within_the_budget(models, expected, context, text, accuracy):
    ids, logits, quantizing = expected[text]
    got = logits_of(models[0], KVQCache(models[0].config, text, accuracy=accuracy, context=context), ids)
    bound = tolerances.logits_rms(tolerances.budget(accuracy, FORMATS[text]), quantizing)
    assert tolerances.relative_rms(got, logits) <= bound


@pytest.mark.parametrize("accuracy", ACCURACY_CLASSES)
def test_generate_in_every_class(models, prompt, context, accuracy):
    """Beams, and rows of unequal lengths: the class goes with the cache through whatever happens to it."""
    model = models[0]
    mask = torch.ones_like(prompt)
    mask[0, :40] = 0
    cache = KVQCache(model.config, "k4c32-v4t32/w32,block", accuracy=accuracy, context=context)
    output = model.generate(prompt, attention_mask=mask, past_key_values=cache, num_beams=2, max_new_tokens=8,
                            do_sample=False, pad_token_id=0)  # fmt: skip
    assert output.shape == (2, prompt.shape[1] + 8)
    assert {group.pool.cache.config["accuracy"] for group in cache.packed.groups} == {accuracy}
    assert cache.fork().accuracy == accuracy
    names = [kernel["name"] for kernel in cache.kernels() if kernel["name"].startswith("attend:")]
    assert any(name.endswith(f":{accuracy}") for name in names)


def test_what_is_stored_does_not_depend_on_the_class(models, prompt, context, tmp_path):
    """A cache that was saved in one class opens in another, with the same bytes."""
    model = models[0]
    cache = KVQCache(model.config, "k4c32-v4t32/w32,block", accuracy="fast", context=context)
    with torch.no_grad():
        model(prompt, past_key_values=cache)
    cache.save(tmp_path / "fast.kvq")
    for accuracy in (*ACCURACY_CLASSES, None):
        opened = KVQCache.open(tmp_path / "fast.kvq", model.config, accuracy=accuracy, context=context)
        assert opened.accuracy == (accuracy or DEFAULT_ACCURACY)
        opened.save(tmp_path / "again.kvq")
        assert (tmp_path / "again.kvq").read_bytes() == (tmp_path / "fast.kvq").read_bytes()


# ---- asking for one --------------------------------------------------------------------------------------------------


def test_the_default_is_one_of_the_classes(models, context):
    assert ACCURACY_CLASSES == tolerances.CLASSES
    assert KVQCache(models[0].config, "kvq-4", context=context).accuracy == DEFAULT_ACCURACY
    shape = dict(layers=1, q_heads=2, kv_heads=1, dk=32, dv=32, blocks=1)
    assert kvq.lowlevel.Cache(context, "kvq-4", **shape).config["accuracy"] == DEFAULT_ACCURACY
    for accuracy in ACCURACY_CLASSES:
        assert kvq.lowlevel.Cache(context, "kvq-4", accuracy=accuracy, **shape).config["accuracy"] == accuracy
        kvq.lowlevel.query_support(context, "kvq-4", accuracy=accuracy, **{**shape, "blocks": 1})


def test_refusals_name_the_classes(models, context):
    sentence = "use one of \"full\", \"exact\", \"normal\", \"fast\""
    with pytest.raises(kvq.InvalidArgument, match=sentence):
        KVQCache(models[0].config, "kvq-4", accuracy="quick", context=context)
    with pytest.raises(kvq.InvalidArgument, match=sentence):
        kvq.lowlevel.Cache(context, "kvq-4", layers=1, q_heads=1, kv_heads=1, dk=32, dv=32, blocks=1, accuracy="quick")


def test_drop_in_faces_take_a_class():
    assert kvq_package.KVQ({"nbits_k": 4}, accuracy="fast").accuracy == "fast"
    assert kvq_package.KVQ({"nbits_k": 4}).accuracy == DEFAULT_ACCURACY
    with pytest.raises(kvq.InvalidArgument, match="accuracy is 'quick'"):
        kvq_package.KVQ({"nbits_k": 4}, accuracy="quick")
