# SPDX-License-Identifier: Apache-2.0
"""What tests of the tuner share."""

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the usual database and kernel store of this test alone."""
    monkeypatch.setenv("KVQ_TUNE_DB", str(tmp_path / "tuning.db"))
    monkeypatch.setenv("KVQ_STORE", str(tmp_path / "store"))
    return tmp_path
