# SPDX-License-Identifier: Apache-2.0
"""The device under test: $KVQ_TEST_DEVICE, "cpu" by default."""

import os

import pytest

import kvq


@pytest.fixture(scope="session")
def device():
    return os.environ.get("KVQ_TEST_DEVICE", "cpu")


@pytest.fixture(scope="session")
def context(device, tmp_path_factory):
    return kvq.lowlevel.Context(device, store_dir=str(tmp_path_factory.mktemp("store")))
