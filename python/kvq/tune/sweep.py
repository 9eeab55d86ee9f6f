# SPDX-License-Identifier: Apache-2.0
"""A sweep as a file: models, formats, targets, contexts and batches, whose product is a list of problems.

    formats = ["kivi-4", "kvq-2"]
    targets = ["host", "nvptx:sm_90"]
    contexts = ["4k", "32k"]
    batches = [1, 8]

    [[model]]
    config = "llama/config.json"    # or q_heads, kv_heads, head_dim, dtype, attention_window, score_cap by hand

    [search]
    seconds = 60

or the same in YAML. A mistake is reported with the file and the line. docs/tuning.md has all keys.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvq import lowlevel
from kvq.errors import Error, InvalidArgument
from kvq.inspect import gpus
from kvq.tune.kernel_requests import DTYPES, Shape, check_operation, is_accelerator, request
from kvq.tune.model_shapes import from_config_file
from kvq.tune.problem import CACHES, Conditions, Problem
from kvq.tune.search_options import SearchOptions
from kvq.tune.sweep_file import Tree, parse

HOST = "host"  # a target: the best level of this processor
_LISTS: dict[str, list[Any]] = {  # with what stands for a list that is left out
    "formats": [], "contexts": [], "targets": [HOST], "batches": [1], "classes": [lowlevel.DEFAULT_ACCURACY],
    "kernels": ["attend"], "caches": ["cold"], "threads": [1],
}  # fmt: skip
_NEEDED = ("formats", "contexts")
_MODEL = {"name": str, "config": str, "q_heads": int, "kv_heads": int, "head_dim": int, "value_dim": int, "dtype": str,
          "attention_window": int, "score_cap": bool}  # fmt: skip
_BY_HAND = ("q_heads", "kv_heads", "head_dim")


@dataclass(frozen=True)
class Sweep:
    """`models`: which models a problem serves. `left_out`: what of the product has no kernel, each with the reason."""

    problems: tuple[Problem, ...]
    models: Mapping[Problem, tuple[str, ...]]
    left_out: tuple[tuple[str, str], ...]
    search: SearchOptions


def read(path: Path) -> Sweep:
    """Of a file of TOML, or of YAML where its name ends so."""
    return _File(parse(path)).sweep()


class _File:
    """A file while it is read: every complaint has the line of what it is about."""

    def __init__(self, tree: Tree) -> None:
        self.path, self.data, self.error = tree.path, tree.data, tree.error

    def sweep(self) -> Sweep:
        self.refuse_unknown(self.data, [*_LISTS, "model", "search"])
        lists = {name: self.list_of(name) for name in _LISTS}
        models = self.models()
        problems, left_out = self.product(lists, models)
        if not problems:
            raise self.error("nothing is left of the product: " + (f"{left_out[0][0]}: {left_out[0][1]}"), "formats")
        served = {problem: tuple(dict.fromkeys(names)) for problem, names in problems.items()}
        return Sweep(tuple(problems), served, tuple(left_out), self.search())

    def refuse_unknown(self, data: Mapping[str, Any], known: list[str], *table: str | int) -> None:
        for key in data:
            if key not in known:
                raise self.error(f"'{key}' is unknown: use {', '.join(known)}", *table, key)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def list_of(self, name: str) -> list[Any]:
        if name in _NEEDED and name not in self.data:
            raise self.error(f"{name} is missing: add a list, such as {_example(name)}")
        given = self.data.get(name, _LISTS[name])
        if not isinstance(given, list) or not given:
            raise self.error(f"{name} is {given!r}: give a list with at least one, such as {_example(name)}", name)
        try:
            return list(dict.fromkeys(_VALUES[name](value) for value in given))
        except (Error, ValueError) as error:
            raise self.error(str(error), name) from error

    def models(self) -> list[tuple[str, list[Shape]]]:
        given = self.data.get("model")
        if not isinstance(given, list) or not given:
            words = "there is no model: add a list of models with config, or with q_heads, kv_heads and head_dim"
            raise self.error(words, "model")
        return [self.model(data, number) for number, data in enumerate(given)]

    def model(self, data: Any, number: int) -> tuple[str, list[Shape]]:
        if not isinstance(data, dict):
            raise self.error(f"a model is {data!r}: give config, or q_heads, kv_heads and head_dim", "model", number)
        self.refuse_unknown(data, list(_MODEL), "model", number)
        for key, kind in _MODEL.items():
            value = data.get(key, kind())
            if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 0)):
                raise self.error(f"{key} is {value!r}: it must be {_KIND[kind]}", "model", number, key)
        if "config" in data:
            if both := [key for key in _MODEL if key in data and key not in ("name", "config")]:
                raise self.error(f"{both[0]} stands beside config, which says it: remove one", "model", number, both[0])
            file = self.path.parent / Path(data["config"]).expanduser()
            file = file / "config.json" if file.is_dir() else file
            try:
                return data.get("name", file.resolve().parent.name), from_config_file(file)
            except Error as error:
                raise self.error(str(error), "model", number, "config") from error
        if missing := [key for key in _BY_HAND if not data.get(key)]:
            raise self.error(f"{missing[0]} is missing: add it, or name a config", "model", number)
        dtype = data.get("dtype", "bfloat16")
        if dtype not in DTYPES:
            raise self.error(f"dtype is '{dtype}': use one of {', '.join(DTYPES)}", "model", number, "dtype")
        shape = Shape(
            data["q_heads"], data["kv_heads"], data["head_dim"], data.get("value_dim") or data["head_dim"],
            DTYPES[dtype], data.get("attention_window", 0), data.get("score_cap", False),
        )  # fmt: skip
        return data.get("name", f"model {number + 1}"), [shape]

    def search(self) -> SearchOptions:
        data = self.data.get("search", {})
        if not isinstance(data, dict):
            raise self.error(f"search is {data!r}: give a table, such as seconds and trials", "search")
        self.refuse_unknown(data, list(SearchOptions.__dataclass_fields__), "search")
        for key, value in data.items():
            try:
                SearchOptions(**{key: value})
            except InvalidArgument as error:
                raise self.error(str(error), "search", key) from error
        return SearchOptions(**data)

    def product(
        self, lists: Mapping[str, list[Any]], models: list[tuple[str, list[Shape]]]
    ) -> tuple[dict[Problem, list[str]], list[tuple[str, str]]]:
        """The problems, each with the models that it serves, and what has no kernel, with the reason."""
        problems: dict[Problem, list[str]] = {}
        left_out: dict[str, str] = {}
        kinds = itertools.product(models, lists["targets"], lists["formats"], lists["kernels"], lists["classes"])
        for (name, shapes), target, format, kernel, accuracy in kinds:
            for shape in shapes:
                try:
                    text = request(kernel, format, shape, target, accuracy)
                except Error as error:
                    left_out[f"{kernel} of {name}, {format}, {target}"] = str(error)
                    continue
                for conditions in _conditions(lists, shape):
                    problems.setdefault(Problem(text, target, conditions), []).append(name)
        return problems, list(left_out.items())


def _conditions(lists: Mapping[str, list[Any]], shape: Shape) -> list[Conditions]:
    return [
        Conditions(cache, tokens, batch, shape.kv_heads, threads, shape.window)
        for tokens, batch, threads, cache in itertools.product(
            lists["contexts"], lists["batches"], lists["threads"], lists["caches"]
        )
    ]


# -- values of lists ---------------------------------------------------------------------------------------------------


def _target(value: Any) -> str:
    if value == HOST:
        return lowlevel.shared_context().level
    if isinstance(value, str) and is_accelerator(value):
        gpus.architecture_of(value)
        return value
    levels = lowlevel.shared_context().levels
    if value not in levels:
        known = f"{HOST}, one of {', '.join(levels)}, or nvptx:sm_80 and later"
        raise InvalidArgument(f"there is no target {value!r}: use {known}")
    return str(value)


def _format(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{value!r} is no format: write a text such as \"kivi-4\"")
    lowlevel.format_canonical(value)
    return value


def tokens_of(value: Any) -> int:
    found = re.fullmatch(r"(\d+)([km]?)", str(value).lower()) if isinstance(value, str | int) else None
    if found is None or isinstance(value, bool) or int(found[1]) == 0:
        raise InvalidArgument(f"{value!r} is no number of tokens: write 4096 or \"4k\"")
    return int(found[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[found[2]]


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidArgument(f"{value!r} is no number from 1: write 1 or 8")
    return value


def _cache(value: Any) -> str:
    if value not in CACHES:
        raise InvalidArgument(f"{value!r} is no state of the caches: use {' or '.join(CACHES)}")
    return str(value)


def _example(name: str) -> str:
    return {"formats": '["kivi-4"]', "contexts": '["4k", 32768]'}.get(name, str(_LISTS[name]).replace("'", '"'))


_VALUES = {"formats": _format, "contexts": tokens_of, "targets": _target, "batches": _count, "threads": _count,
           "classes": lambda value: lowlevel.check_accuracy(str(value)),
           "kernels": lambda value: check_operation(str(value)), "caches": _cache}  # fmt: skip
_KIND = {str: "a text", int: "a number from 0", bool: "true or false"}
