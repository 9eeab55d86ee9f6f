# SPDX-License-Identifier: Apache-2.0
"""A file of TOML or YAML as plain data, with the line of every key: what is wrong is said with its place, whichever of
the two it is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kvq.errors import InvalidArgument, Unsupported

YAML = (".yaml", ".yml")

_WORD = r"(?:[\w-]+|\"[^\"]*\"|'[^']*')"
_KEY = re.compile(rf"\s*({_WORD}(?:\s*\.\s*{_WORD})*)\s*=")
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_WORD})\s*\]")

Place = tuple[str | int, ...]  # keys, and numbers of items: ("model", 0, "dtype")


@dataclass(frozen=True)
class Tree:
    path: Path
    data: Mapping[str, Any]
    lines: Mapping[Place, int]

    def error(self, words: str, *place: str | int) -> InvalidArgument:
        """With the line of a place, or of the table that it would be in."""
        known = (place[:count] for count in range(len(place), 0, -1) if place[:count] in self.lines)
        return _error(self.path, self.lines.get(next(known, ()), 1), words)


def parse(path: Path) -> Tree:
    """`.yaml` and `.yml` are YAML, all others TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path} cannot be read ({error}): name a sweep's TOML or YAML file") from error
    try:
        return _yaml(path, text) if path.suffix.lower() in YAML else _toml(path, text)
    except RecursionError as error:
        raise _error(path, 1, "it is nested too deeply: write it as in docs/tuning.md") from error


def _error(path: Path, line: int, words: str) -> InvalidArgument:
    return InvalidArgument(f"{path}:{line}: {words}")


# -- TOML --------------------------------------------------------------------------------------------------------------


def _toml(path: Path, text: str) -> Tree:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        line = int(place[1]) if place else len(text.splitlines())
        what = str(error)[: place.start()] if place else str(error)
        raise _error(path, line, f"{what}: write TOML, as in docs/tuning.md") from error
    return Tree(path, data, _toml_lines(text, data))


def _toml_lines(text: str, data: Mapping[str, Any]) -> dict[Place, int]:
    """Of keys that begin a line, and of headers. tomllib says no lines; what a line of a longer text or array looks
    like does no harm, as it comes behind the key itself."""
    lines: dict[Place, int] = {}
    table: Place = ()
    for at, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header and (name := header[2].strip("\"'")) in data:
            number = sum(place[:1] == (name,) and len(place) == 2 for place in lines)
            table = (name, number) if header[1] == "[[" else (name,)
            lines.setdefault((name,), at)
            lines.setdefault(table, at)
        elif key:
            parts = [part.strip("\"'") for part in re.findall(_WORD, key[1])]
            for count in range(1, len(parts) + 1):
                lines.setdefault((*table, *parts[:count]), at)
    return lines


# -- YAML --------------------------------------------------------------------------------------------------------------


class _Mistake(Exception):
    def __init__(self, line: int, words: str) -> None:
        super().__init__(words)
        self.line = line


def _yaml(path: Path, text: str) -> Tree:
    yaml = _module()
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines = dict(_yaml_lines(loader, node, (), set())) if node else {}
        data = loader.construct_document(node) if node else {}
    except yaml.reader.ReaderError as error:  # a character that YAML has not
        line = text.count("\n", 0, error.position) + 1
        raise _error(path, line, f"{error.reason}: write YAML, as in docs/tuning.md") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = error.problem or error.context
        raise _error(path, mark.line + 1 if mark else 1, f"{words}: write YAML, as in docs/tuning.md") from error
    except _Mistake as error:
        raise _error(path, error.line, str(error)) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise _error(path, node.start_mark.line + 1, "it has no keys: write them as in docs/tuning.md")
    return Tree(path, data, lines)


def _module() -> ModuleType:
    try:
        import yaml
    except ImportError as error:
        raise Unsupported("PyYAML is not installed: pip install PyYAML, or write the sweep as TOML") from error
    return yaml


def _yaml_lines(loader: Any, node: Any, place: Place, seen: set[int]) -> Iterator[tuple[Place, int]]:
    """Of every key and every item. Refuses what TOML has not: PyYAML takes the last of two equal keys without a word,
    and an alias may stand for any amount of data."""
    line = node.start_mark.line + 1
    if id(node) in seen:
        raise _Mistake(line, "what this anchor names is used again (*name): write it out there")
    seen.add(id(node))
    if node.id == "sequence":
        for number, item in enumerate(node.value):
            yield (*place, number), item.start_mark.line + 1
            yield from _yaml_lines(loader, item, (*place, number), seen)
    elif node.id == "mapping":
        keys = set()
        for key_node, value in node.value:
            at, key = key_node.start_mark.line + 1, _scalar(loader, key_node)
            if key in keys:
                raise _Mistake(at, f"'{key}' stands here a second time: remove one")
            keys.add(key)
            yield (*place, key), at
            yield from _yaml_lines(loader, value, (*place, key), seen)
    else:
        _scalar(loader, node)


def _scalar(loader: Any, node: Any) -> Any:
    line = node.start_mark.line + 1
    if node.id != "scalar":
        raise _Mistake(line, "a key is a list or a table: write a word")
    try:
        return loader.construct_object(node)
    except (ArithmeticError, AttributeError, LookupError, ValueError) as error:  # 2026-13-01, or !!bool maybe
        raise _Mistake(line, f"'{node.value}' is no {node.tag.split(':')[-1]} ({error}): put quotes around it") from error
