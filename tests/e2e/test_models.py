# SPDX-License-Identifier: Apache-2.0
"""What kvq does with each kind of model: the table in README.md, of which every line is asserted here.

    python tests/e2e/test_models.py     writes the table into README.md
"""

import copy
import pathlib
import re
import sys
import warnings

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache

if __name__ == "__main__":
    sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parent.parent / "oracle")]

from kvq_oracle import hf_cache
from kvq_oracle.hf_cache import OracleCache
from model_zoo import FALLS_BACK, IN_PLACE, REFUSED, ZOO

import kvq
from kvq.hf import KVQCache
from kvq.hf.batch import PackedBatch

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
PLACE = re.compile(r"(<!-- models: .*? -->\n).*?(<!-- end of models -->)", re.DOTALL)
OPTIONS = dict(do_sample=False, max_new_tokens=24)

pytestmark = pytest.mark.usefixtures("one_thread")


def table():
    lines = ["| model | special for a cache | kvq |", "|---|---|---|"]
    lines += [f"| {entry.name} | {entry.what} | {entry.outcome} |" for entry in ZOO]
    return "\n".join(lines) + "\n"


def prompt():
    """Two rows, left-padded, the longer one beyond every window."""
    ids = torch.randint(1, 128, (2, 90), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(90) >= torch.tensor([[0], [31]])).long()
    return ids * mask, mask


def entries(outcome):
    return pytest.mark.parametrize("entry", [e for e in ZOO if e.outcome == outcome], ids=lambda entry: entry.name)


def of_decoder(model, cache):
    """What generate() takes: the decoder's cache beside one for cross attention, where there is an encoder."""
    return EncoderDecoderCache(cache, DynamicCache()) if model.config.is_encoder_decoder else cache


@entries(IN_PLACE)
def test_in_place(entry, context, monkeypatch):
    """Nothing is read back as dense rows, nothing is said, and the tokens are those of the oracle in the same format
    (of DynamicCache where the model has an encoder, which the oracle does not know)."""
    monkeypatch.setattr(PackedBatch, "read", lambda *_: pytest.fail("dense K and V were rebuilt"))
    model, (ids, mask) = entry.make(), prompt()
    reference = copy.deepcopy(model)
    model.set_attn_implementation("kvq")
    cache = KVQCache(model.config, entry.format, accuracy="full", context=context)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*KVQCache.*")
        got = model.generate(ids, attention_mask=mask, past_key_values=of_decoder(model, cache), **OPTIONS)
    if model.config.is_encoder_decoder:
        expected = reference.generate(ids, attention_mask=mask, **OPTIONS)
    else:
        reference.set_attn_implementation(hf_cache.NAME)
        oracle = OracleCache(reference.config, entry.format)
        expected = reference.generate(ids, attention_mask=mask, past_key_values=oracle, **OPTIONS)
        assert cache.lengths == oracle.lengths == [113, 82]
    assert torch.equal(got, expected)
    assert tuple(layer.window for layer in cache.layers) == (entry.windows or (0,) * len(cache.layers))
    assert sorted(layer for group in cache.packed.groups for layer in group.layers) == list(range(len(cache.layers)))


@entries(FALLS_BACK)
def test_falls_back(entry, context):
    """One sentence, and the tokens of DynamicCache: all of them while nothing leaves the window, and those before an
    8-bit code decides a near-tie otherwise."""
    model, (ids, mask) = entry.make(), prompt()
    expected = model.generate(ids, attention_mask=mask, **OPTIONS)
    start = 1 if model.config.is_encoder_decoder else ids.shape[1]
    model.set_attn_implementation("kvq")
    for text, same in ((entry.format.replace("w32", "w4096"), OPTIONS["max_new_tokens"]), (entry.format, 2)):
        cache = KVQCache(model.config, text, accuracy="full", context=context)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            got = model.generate(ids, attention_mask=mask, past_key_values=of_decoder(model, cache), **OPTIONS)
        said = [str(warning.message) for warning in caught if "KVQCache" in str(warning.message)]
        assert len(said) == 1 and "cannot be attended in place" in said[0]
        assert torch.equal(got[:, : start + same], expected[:, : start + same])
        report = cache.report()
        assert report["tokens"] == 2 * cache.get_seq_length()
        assert (report["page_bytes_used"] > 0) == (text == entry.format and cache.get_seq_length() >= 64)


@entries(REFUSED)
def test_refused(entry, context):
    with pytest.raises(kvq.Unsupported, match="use transformers.DynamicCache for this model"):
        KVQCache(entry.make().config, entry.format, accuracy="full", context=context)


def test_an_encoder_is_not_taken_for_a_decoder(context):
    """A bare KVQCache would also get K and V of the encoder."""
    model = next(entry for entry in ZOO if entry.name == "BART").make()
    model.set_attn_implementation("kvq")
    cache = KVQCache(model.config, "k8c32-v8t16", accuracy="full", context=context)
    with pytest.raises(kvq.Unsupported, match="EncoderDecoderCache"):
        model.generate(prompt()[0], past_key_values=cache, **OPTIONS)


def test_the_readme_has_this_table():
    """If it has not: python tests/e2e/test_models.py"""
    found = PLACE.search(README.read_text())
    assert found and found.group(0) == found.group(1) + table() + found.group(2)


if __name__ == "__main__":
    text = README.read_text()
    README.write_text(PLACE.sub(lambda found: found.group(1) + table() + found.group(2), text))
