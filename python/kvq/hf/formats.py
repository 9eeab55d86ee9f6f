# SPDX-License-Identifier: Apache-2.0
"""Which format each layer of a cache has, as users say it: one text, a list, a file, or a function of the head sizes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from kvq import lowlevel
from kvq.errors import InvalidArgument

# A function gets (layer, dk, dv) and gives the layer's text: for formats that depend on the head size.
FormatSpec = str | os.PathLike | Sequence[str] | Callable[[int, int, int], str]
_FILES = (".json", ".txt")


class Formats:
    """What a user asked for, checked as far as it can be before the model is known.

    keep_first sets `keepS` of every text (format-spec text_c8); None leaves the texts as they are.
    """

    def __init__(self, spec: FormatSpec, keep_first: int | None = None) -> None:
        if isinstance(spec, os.PathLike) or (isinstance(spec, str) and spec.endswith(_FILES)):
            spec = _read_file(Path(spec))
        self._keep = keep_first
        self._function = spec if callable(spec) else None
        self._texts: list[str] = []
        if isinstance(spec, str):
            self._texts = [self._canonical(spec)]
        elif self._function is None:
            self._texts = [self._canonical(text, layer) for layer, text in enumerate(spec)]
            if not self._texts:
                raise InvalidArgument("the list of formats is empty: give one text for each layer, or one text for all")
        self._is_list = not isinstance(spec, str) and self._function is None

    @property
    def text(self) -> str | None:
        """The canonical text, where it is the same for all layers and known."""
        return self._texts[0] if len(set(self._texts)) == 1 else None

    def check_layers(self, layers: int) -> None:
        if self._is_list and len(self._texts) != layers:
            raise InvalidArgument(
                f"the list of formats has {len(self._texts)} entries where the model has {layers} layers: give one "
                "for each layer, or one text for all"
            )

    def of(self, layer: int, dk: int, dv: int) -> str:
        """The canonical text of a layer with these head sizes."""
        if self._function is not None:
            return self._canonical(self._function(layer, dk, dv), layer)
        return self._texts[layer if self._is_list else 0]

    def _canonical(self, text: str, layer: int | None = None) -> str:
        where = "format" if layer is None else f"format of layer {layer}"
        if not isinstance(text, str):
            raise InvalidArgument(f"{where} is {text!r}: give a preset such as \"kivi-4\" or a text")
        try:
            canonical = lowlevel.format_canonical(text)
            return canonical if self._keep is None else _with_keep(canonical, self._keep)
        except InvalidArgument as error:
            raise error if layer is None else InvalidArgument(f"layer {layer}: {error}") from None


def _with_keep(canonical: str, keep: int) -> str:
    pair, policy = canonical.split("/")
    parts = policy.split(",")
    return lowlevel.format_canonical(f"{pair}/{parts[0]},keep{keep},{parts[-1]}")


def _read_file(path: Path) -> str | list[str]:
    """.txt: one text a line, `#` begins a comment. .json: a list, or {"layers": [...]}."""
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(f"the file of formats {path} cannot be read ({error.strerror}): check the path") from None
    if path.suffix == ".txt":
        lines = (line.split("#")[0].strip() for line in content.splitlines())
        return [line for line in lines if line]
    try:
        data = json.loads(content)
    except ValueError as error:
        raise InvalidArgument(f"{path} is not JSON ({error}): write a list of texts, one for each layer") from None
    texts = data.get("layers") if isinstance(data, dict) else data
    if not isinstance(texts, (str, list)):
        raise InvalidArgument(f"{path} holds neither a list of texts nor {{\"layers\": [...]}}: write one of them")
    return texts
