# SPDX-License-Identifier: Apache-2.0
"""Options and import paths that all Python tests share."""

import sys
from pathlib import Path

from hypothesis import settings

TESTS = Path(__file__).resolve().parent
for folder in (TESTS, TESTS / "oracle", TESTS / "conformance", TESTS / "ptxsim", TESTS / "jit", TESTS / "inspection"):
    sys.path.insert(0, str(folder))

# A test run must be repeatable and must not fail because the machine is busy.
settings.register_profile("kvq", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("kvq")


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="a tenth of the random sequences of cache operations")
    parser.addoption(
        "--full", action="store_true", help="run the full product of kernel shapes, not the pairwise covering array"
    )
