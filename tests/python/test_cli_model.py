# SPDX-License-Identifier: Apache-2.0
"""The command line on the real model: a GGUF file, a passkey that is found, an answer that makes sense."""

import io
import json

import pytest
from kvq.cli import main
from kvq.evaluate.source import demo_source

pytestmark = pytest.mark.model

ARGUMENTS = ["--metrics", "quality,passkey,memory", "--windows", "1", "--tokens", "256", "--context", "512",
             "--depths", "50"]


@pytest.fixture(scope="module", autouse=True)
def own_cache_folder(tmp_path_factory):
    """The converted tokenizer goes there and not to the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def evaluate(folder, model):
    assert main(["eval", model, "dynamic", "kvq-8", "kivi-2", *ARGUMENTS, "--out", str(folder)]) == 0
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return evaluate(tmp_path_factory.mktemp("out"), "smollm2")


def test_figures_are_in_order(report):
    full, dynamic, eight, two = report["caches"]
    assert 1 < full["quality"]["perplexity"] < 60
    assert dynamic["quality"]["kl"] < 1e-9 < eight["quality"]["kl"] < two["quality"]["kl"] / 100
    bits = [row["memory"][0]["bits_per_element"] for row in (dynamic, eight, two)]
    assert bits == sorted(bits, reverse=True) and bits[0] == 32


def test_passkey_is_found(report):
    found = {row["cache"]: row["passkey"][0]["right"] for row in report["caches"][1:]}
    assert found["dynamic"] == found["kvq-8"] == 1


def test_gguf_file_by_its_path_is_the_same_model(report, tmp_path):
    source = demo_source()
    other = evaluate(tmp_path, str(source.folder / source.gguf))
    assert other["model"]["fingerprint"] == report["model"]["fingerprint"]
    assert [r["key"] for r in other["records"]] == [r["key"] for r in report["records"]]
    assert [row["quality"] for row in other["caches"]] == [row["quality"] for row in report["caches"]]


def test_chat_of_8_bits_says_what_full_precision_says(monkeypatch, capsys):
    """The first words of two answers; later on a near-tie may be decided otherwise."""
    said = {}
    for cache in ("kvq-8", "dynamic"):
        monkeypatch.setattr("sys.stdin", io.StringIO("My name is Agathe. Say hello to me.\nWhat is my name?\n"))
        assert main(["chat", "smollm2", "--cache", cache, "--max-new-tokens", "20"]) == 0
        said[cache] = [line[:20] for line in capsys.readouterr().out.splitlines()]
    assert len(said["kvq-8"]) == 2 and said["kvq-8"] == said["dynamic"]
