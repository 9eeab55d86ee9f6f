# SPDX-License-Identifier: Apache-2.0
"""The wheel, built from the tree, and a fresh environment that it is installed in."""

import subprocess
import sys
import venv

import pytest

from wheel_env import Installed, clean_environment

import build_wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    return build_wheel.build(tmp_path_factory.mktemp("wheel"), build_wheel.RELEASE)


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (folder / "empty").mkdir()
    made = Installed(folder)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", made.python, "install", "-q", "--no-index",
         "--disable-pip-version-check", wheel], check=True, env=clean_environment(),
    )  # fmt: skip
    return made
