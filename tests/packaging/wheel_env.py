# SPDX-License-Identifier: Apache-2.0
"""An environment with the wheel in it, and the clean shell that programs run in there."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = pathlib.Path(pytest.__file__).resolve().parents[1]  # NumPy, torch and transformers of the tests' environment
sys.path.insert(0, str(ROOT / "scripts"))


def clean_environment(**more):
    """The environment of a user's shell: nothing in it leads to this source tree or its build."""
    ours = ("PYTHON", "KVQ_", "LD_", "VIRTUAL_ENV")
    return {**{k: v for k, v in os.environ.items() if not k.startswith(ours)}, "HF_HUB_OFFLINE": "1", **more}


@dataclasses.dataclass
class Installed:
    """An environment of its own with the wheel in it and nothing else."""

    folder: pathlib.Path

    @property
    def python(self):
        return self.folder / "bin" / "python"

    @property
    def site(self):
        (site,) = self.folder.glob("lib/python*/site-packages")
        return site

    @property
    def package(self):
        return self.site / "kvq"

    def run(self, *arguments, prefix=(), **environment):
        """Runs its Python in an empty folder; the result has the output as text."""
        return subprocess.run(
            [*prefix, self.python, *arguments], cwd=self.folder / "empty", env=clean_environment(**environment),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
