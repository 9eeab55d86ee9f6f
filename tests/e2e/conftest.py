# SPDX-License-Identifier: Apache-2.0
"""The device under test: $KVQ_TEST_DEVICE, "cpu" by default."""

import os

import pytest
import torch

import kvq
from kvq_oracle import hf_cache


@pytest.fixture(scope="session")
def device():
    return os.environ.get("KVQ_TEST_DEVICE", "cpu")


@pytest.fixture(scope="session")
def context(device, tmp_path_factory):
    return kvq.lowlevel.Context(device, store_dir=str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def one_thread():
    """One thread of torch: on a busy machine two wait for each other longer than tiny products take. And the oracle's
    attention is known to transformers."""
    hf_cache.register()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
