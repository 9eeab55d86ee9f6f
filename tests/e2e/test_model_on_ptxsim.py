# SPDX-License-Identifier: Apache-2.0
"""A model as an engine would run it on an accelerator: its q, k and v go to the device's memory, a cache there attends
by PTX kernels in the simulator, and the output goes on in the model, which is on the CPU.

SmolLM2-135M, all its layers, over real prose: a prompt and 16 tokens more, each fed alone, the same to both devices.
"""

import os
from pathlib import Path

import pytest
import tolerances
import torch
from device_tensor import DeviceTensor, empty_tensor
from kvq.evaluate.model import smollm2
from kvq.evaluate.prose import handbook
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import AttentionInterface

from kvq import lowlevel

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("one_thread")]

ACCELERATOR = os.environ.get("KVQ_TEST_ACCELERATOR", "ptxsim")  # or cuda: a GPU
FORMATS = {"k4c32-v4t32/w32,block": 4, "k8c32-v8t32/w32,sliding": 8}
PROMPT, STEPS = 104, 16
NAME = "kvq_test_engine"


class Engine:
    """One sequence in a cache on a device; `attend` is what transformers calls in every layer."""

    def __init__(self, config, device, text):
        self.context = lowlevel.Context(device, threads=1)
        self.layers = config.num_hidden_layers
        self.cache = lowlevel.Cache(
            self.context, text, layers=self.layers, q_heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads, dk=config.head_dim, dv=config.head_dim, dtype="float16",
            blocks=4, sequences=1,
        )  # fmt: skip
        self.sequence = self.cache.add()
        self.opened = None

    def attend(self, module, query, key, value, mask, scaling, **_):
        q, k, v = (DeviceTensor(self.context, x.to(torch.float16)) for x in (query, key, value))
        out = empty_tensor(self.context, query.shape, torch.float16)
        self.opened.forward(module.layer_idx, q.array, k.array, v.array, scaling, out.array)
        return torch.from_numpy(out.fetch()).transpose(1, 2).contiguous(), None

    @torch.inference_mode()
    def feed(self, model, ids):
        """Logits of the last token."""
        begin = self.cache.length(self.sequence)
        positions = torch.arange(begin, begin + ids.shape[1])[None]
        with self.cache.plan([self.sequence], [ids.shape[1]]) as self.opened:
            return model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, -1]


@pytest.fixture(scope="module")
def subject():
    return smollm2(Path("build"))


@pytest.fixture(scope="module")
def ids(subject):
    return subject.encode(handbook()[20_000:24_000])[:, : PROMPT + STEPS]


def logits_of(subject, ids, engine):
    AttentionInterface.register(NAME, engine.attend)
    usual = subject.model.config._attn_implementation
    subject.model.set_attn_implementation(NAME)
    try:
        parts = [ids[:, :PROMPT], *ids[:, PROMPT:].split(1, dim=1)]
        return torch.stack([engine.feed(subject.model, part) for part in parts])
    finally:
        subject.model.set_attn_implementation(usual)
        AttentionInterface.register(NAME, sdpa_attention_forward)  # the registry would keep the engine


@pytest.fixture(scope="module")
@torch.inference_mode()
def full(subject, ids):
    usual = subject.model.config._attn_implementation
    subject.model.set_attn_implementation("sdpa")
    try:
        return subject.model(input_ids=ids, use_cache=False).logits[0, PROMPT - 1 :]
    finally:
        subject.model.set_attn_implementation(usual)


@pytest.mark.parametrize("text", FORMATS)
def test_logits_on_an_accelerator_are_the_cpus(subject, ids, full, text):
    engines = [Engine(subject.model.config, device, text) for device in ("cpu", ACCELERATOR)]
    expected, got = (logits_of(subject, ids, engine) for engine in engines)
    quantizing = tolerances.relative_rms(expected, full)
    arithmetic = tolerances.attention_rms("f16", tolerances.budget("exact", FORMATS[text]))
    found = tolerances.relative_rms(got, expected)
    print(f"{text}: {found:.2e} beside {quantizing:.2e} of quantizing")
    assert 0 < found <= tolerances.logits_rms(arithmetic, quantizing)
    assert [engine.cache.length(engine.sequence) for engine in engines] == [PROMPT + STEPS] * 2
    assert (got.argmax(-1) == expected.argmax(-1)).float().mean() >= 0.9
