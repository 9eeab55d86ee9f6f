# SPDX-License-Identifier: Apache-2.0
"""KVTuner's bits for each layer: `{layer: {"nbits_key": 4, "nbits_value": 2}}`, from a dictionary, YAML or JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from kvq.compat import options
from kvq.errors import InvalidArgument

KEYS = ("nbits_key", "nbits_value")


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error: PyYAML lets the last one win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        return _once(
            [(self.construct_object(k, deep=True), self.construct_object(v, deep=True)) for k, v in node.value]
        )


_Loader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, lambda loader, node: loader.construct_mapping(node)
)


def _once(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key, value in pairs:
        if key in result:
            raise InvalidArgument(f"{key!r} stands there twice")
        result[key] = value
    return result


def read(name: str, path: str | os.PathLike[str]) -> Any:
    """What a .json file or, with any other ending, a YAML file says."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            return json.loads(text, object_pairs_hook=_once)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise InvalidArgument(f"{name} is {str(path)!r}, which cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise InvalidArgument(f"{name} is {str(path)!r}, which is not a table of layers: {said}") from None


def widths(name: str, table: Any) -> tuple[tuple[int, int], ...]:
    """Bits of K and V of layer 0, 1, ..; a table that leaves a layer out or says something else is refused."""
    if not isinstance(table, Mapping) or not table:
        raise InvalidArgument(
            f'{name} is {table!r}: give {{layer: {{"nbits_key": bits, "nbits_value": bits}}}} for every layer'
        )
    layers = _once_by_number(name, table)
    missing = sorted(set(range(max(layers) + 1)) - set(layers))
    if missing:
        raise InvalidArgument(
            f"{name} has no layer {missing[0]}: give one entry for each of the layers 0 to {max(layers)}"
        )
    return tuple(_pair(f"{name}[{layer}]", layers[layer]) for layer in sorted(layers))


def _once_by_number(name: str, table: Mapping[Any, Any]) -> dict[int, Any]:
    layers: dict[int, Any] = {}
    for key, entry in table.items():
        layer = int(key) if isinstance(key, str) and key.isdecimal() else key  # JSON has no other keys than texts
        if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
            raise InvalidArgument(f"{name} has the key {key!r}: keys are the numbers of layers, from 0")
        if layer in layers:
            raise InvalidArgument(f"{name} has layer {layer} twice: leave one out")
        layers[layer] = entry
    return layers


def _pair(name: str, entry: Any) -> tuple[int, int]:
    if not isinstance(entry, Mapping):
        raise InvalidArgument(f'{name} is {entry!r}: give {{"nbits_key": bits, "nbits_value": bits}}')
    for key in entry:
        if key not in KEYS:
            raise options.unknown(f"{name}: the key", key, KEYS)
    for key in KEYS:
        if key not in entry:
            raise InvalidArgument(f"{name} has no {key}: give both nbits_key and nbits_value")
    return options.width(f'{name}["nbits_key"]', entry["nbits_key"]), options.width(
        f'{name}["nbits_value"]', entry["nbits_value"]
    )
