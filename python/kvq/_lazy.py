# SPDX-License-Identifier: Apache-2.0
"""Runs a function right after a module is imported, so that `import kvq` need not import that module itself.

transformers with torch takes seconds to import and is of no use to a caller of the low-level API; a user of
transformers, in turn, may name attn_implementation="kvq" before touching any attribute of kvq.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _AfterImport(MetaPathFinder):
    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name = name
        self.action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            _wrap(spec.loader, self.action)
        return spec


def _wrap(loader: Loader, action: Callable[[], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        action()

    loader.exec_module = exec_module  # type: ignore[method-assign]


def after_import(name: str, action: Callable[[], None]) -> None:
    """Calls `action` now if module `name` is imported, else once it is."""
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _AfterImport(name, action))
