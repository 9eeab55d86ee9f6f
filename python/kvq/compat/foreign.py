# SPDX-License-Identifier: Apache-2.0
"""The published methods' module names, for programs that import them: `flexible_quant` of KVTuner, `models` of KIVI."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder

from kvq.compat import options
from kvq.errors import FailedPrecondition

HERE = "kvq.compat"
NAMES = {"flexible_quant": ("flexible_quantized_cache",), "models": ("llama_kivi", "mistral_kivi")}


def install(*names: str) -> None:
    """Makes the packages of these names (none given: all of `NAMES`) importable, unless a real one is there already.

    Calling it again changes nothing.
    """
    for name in names:
        if name not in NAMES:
            raise options.unknown("the package", name, NAMES)
    wanted = names or tuple(NAMES)
    for name in wanted:
        _refuse_real(name, [other for other in wanted if other != name])
    for name in wanted:
        package = importlib.import_module(f"{HERE}.{name}")
        sys.modules[name] = package
        for part in NAMES[name]:
            sys.modules[f"{name}.{part}"] = importlib.import_module(f"{HERE}.{name}.{part}")


def _refuse_real(name: str, others: list[str]) -> None:
    present = sys.modules.get(name)
    if present is not None and present.__name__ == f"{HERE}.{name}":
        return
    spec = importlib.util.find_spec(name) if present is None else present.__spec__
    if (present is None and spec is None) or (spec is not None and _is_mere_folder(name, spec)):
        return
    where = getattr(present, "__file__", None) or (spec.origin if spec else None) or "in this program"
    rest = f", and kvq.compat.install({', '.join(map(repr, others))}) for the other name" if others else ""
    raise FailedPrecondition(
        f"a package {name!r} is already there ({where}): import from {HERE}.{name} in its place{rest}"
    )


def _is_mere_folder(name: str, spec: ModuleSpec) -> bool:
    """Whether `spec` is a folder that happens to have the name, as one of weights may, without the method's modules."""
    if spec.origin is not None or spec.submodule_search_locations is None:
        return False
    paths = list(spec.submodule_search_locations)
    return not any(PathFinder.find_spec(f"{name}.{part}", paths) for part in NAMES[name])
