# SPDX-License-Identifier: Apache-2.0
"""The report: what it works out, and that its page is whole, needs nothing else and fits a telephone."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import synthetic
from kvq.cli import main
from kvq.errors import InvalidArgument
from kvq.tune import charts, findings, report
from kvq.tune.capability import accelerator
from kvq.tune.database import Database
from kvq.tune.estimator import ROUNDS
from kvq.tune.kernel_requests import bytes_read
from kvq.tune.problem import Conditions, Problem
from kvq.tune.rows import key_of
from kvq.tune.tuner import predict, tune
from made_report import FORMATS, TIMES, fill, problem
from made_rows import COMPILER, MACHINE, REQUEST, entry, key, trial

VOID = {"meta", "rect", "line", "circle", "polyline", "br"}


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "tuning.db") as database:
        yield database


@pytest.fixture
def filled(database):
    fill(database)
    return database


class Page(HTMLParser):
    """Checks that every element is closed where it must be, and collects what there is."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.said = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)

    def has(self, words):
        return words in " ".join(" ".join(self.said).split())


def page(database, bandwidth=None, perplexity=None):
    text = report.render(findings.find(database, bandwidth or {}, perplexity or {}), "A <title>")
    return text, Page(text)


def test_findings_compare_with_default_and_roofline(filled):
    found = findings.find(filled, {"x86-64-v4": 40e9}, {})
    (four,) = [each for each in found.configurations if each.format == "k4c32-v4t32" and not each.entry.predicted]
    assert four.speedup == pytest.approx(2.0, rel=0.02) and four.entry.schedule == "rows=3"
    assert four.roofline == bytes_read(REQUEST, Conditions()) / 40e9 and four.bits == 5.0
    assert four.elements_per_second == pytest.approx(8 * 4096 * 128 / 1e-3, rel=0.02)
    assert len(four.default.samples) == len(four.tuned.samples) == ROUNDS
    (gpu,) = [each for each in found.configurations if each.entry.predicted]
    assert gpu.roofline == bytes_read(REQUEST, Conditions()) / 3350e9
    assert {failure.status for failure in found.failures} == {"wrong", "infeasible"}
    assert [entry.key.conditions for entry in found.unusable] == [str(Conditions(batch=2))]


def test_predictions_are_paired_with_measurements(filled):
    found = findings.find(filled, {}, {})
    assert len(found.pairs) == 3 * len(FORMATS)
    middle, factor = findings.spread_of(found.pairs)
    assert middle == pytest.approx(1 / 1.1, rel=0.02) and 1 <= factor < 1.03


def test_the_front_has_those_that_no_other_beats_in_both(filled):
    (front,) = findings.find(filled, {}, {}).fronts
    assert [each.format for each in front.formats] == ["k2c32-v2t32", "k3c32-v3t32", "k4c32-v4t32", "k8c32-v8t32"]
    assert [each.format for each in front.best] == ["k2c32-v2t32"]
    with_slow_two = replace(front.formats[0], entry=replace(front.formats[0].entry, seconds=1.1e-3))
    best = findings._best((with_slow_two, *front.formats[1:]))
    assert [each.format for each in best] == ["k2c32-v2t32", "k4c32-v4t32"]


def test_the_page_is_whole_and_says_what_was_found(filled):
    text, parsed = page(filled, {"x86-64-v4": 40e9}, {"k4c32-v4t32": 13.4, "k2c32-v2t32": 15.9})
    for words in ("4 configurations are measured, 1 predicted.", " times as fast as rows=1", "of the roofline",
                  "Tuned against default", "Bytes and speed", "perplexity", "15.900", "Predicted and measured",
                  "half of them are within a factor of", "4 wrong", "4 infeasible", "too many registers: 300 of 255",
                  f"No schedule of {REQUEST} ({Conditions(batch=2)}) works", "rows=<4>", "A <title>"):
        assert parsed.has(words), words
    assert parsed.tags.count("svg") == 5 + 4 + 2 + 1  # bars, samples, a front and its perplexities, predictions
    assert "<4>" not in text and "<title>A &lt;" in text


def test_the_page_needs_nothing_else(filled):
    text, parsed = page(filled)
    assert not {"script", "link", "img", "iframe", "image", "use"} & set(parsed.tags)
    names = {each[1] for each in parsed.attributes}
    assert not {"src", "href", "xlink:href"} & names and not [name for name in names if name.startswith("on")]
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)


def test_the_page_fits_400_and_1600_pixels(filled):
    """Nothing has a fixed width; what may be wide scrolls in itself; cards flow, and are no narrower than a picture."""
    text, parsed = page(filled)
    assert ("meta", "content", "width=device-width, initial-scale=1") in parsed.attributes
    style = text[text.index("<style>") : text.index("</style>")]
    widths = [int(n) for n in re.findall(r"(?<!max-)\bwidth: ?(\d+)px", style)]
    assert widths == [] and "minmax(min(340px, 100%), 1fr)" in style
    assert not [each for each in parsed.attributes if each[0] == "svg" and each[1] in ("width", "height")]
    assert text.count("<table") == text.count('<div class="wide"><table')
    boxes = [each[2].split() for each in parsed.attributes if each[0] == "svg" and each[1].lower() == "viewbox"]
    assert {box[2] for box in boxes} == {"360"}
    # What is drawn lies within its field.
    for tag, name, value in parsed.attributes:
        if tag in ("rect", "circle", "line") and name in ("x", "cx", "x1", "x2"):
            assert 0 <= float(value) <= 360


def test_an_empty_database_gives_a_page(database):
    _, parsed = page(database)
    assert parsed.has("0 configurations are measured") and parsed.has("No candidate.") and "svg" not in parsed.tags


def test_one_sample_and_equal_values_can_be_drawn(database):
    database.record([MACHINE], [trial(samples=(1e-3,)), trial("rows=1", samples=(1e-3, 1e-3))],
                    [replace(entry(), default="rows=1")])
    for number, name in enumerate(("k2c32-v2t32", "k2c32-v2t64")):
        own = key_of(problem(name), MACHINE.hash, COMPILER)
        database.record([MACHINE], [trial(key=own, predicted=bool(number), samples=())], [entry(key=own)])
    page(database)
    assert key(compiler="x") != entry().key
    assert "nan" not in charts.scatter([charts.Point(1, 1), charts.Point(1, 1)], "x", "y", "equal")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5e-5, "25 µs"), (9.994e-4, "999 µs"), (9.996e-4, "1 ms"), (0.0123, "12.3 ms"), (1.0, "1 s"), (75.2, "75.2 s")],
)
def test_durations_have_a_unit_that_fits(seconds, text):
    assert charts.duration(seconds) == text


def test_spikes_do_not_stretch_a_distribution():
    values = [1.0, 1.01, 1.02, 1.03] * 8 + [1e5]
    drawn = charts.distributions([("a", values, "#000")], "samples")
    assert drawn.count("<circle") == 32 and ">+1<" in drawn


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"kivi-4": 13.4, "kvq-2": 15.9}, {"k4c32-v4t32": 13.4, "k2c32-v2t32": 15.9}),
        ({"schema": "kvq-eval/1", "caches": [{"format": "kvq-4", "quality": {"perplexity": 13.5}},
                                            {"format": None, "quality": {"perplexity": 13.0}},
                                            {"format": "kvq-2", "quality": None}]}, {"k4c32-v4t32": 13.5}),
        ([], None), ({"kivi-9": 1}, None), ({"kvq-2": "x"}, None), ({"schema": "kvq-eval/1"}, None),
    ],
)
def test_perplexities_of_a_file(tmp_path, content, found):
    path = tmp_path / "perplexity.json"
    path.write_text(json.dumps(content))
    if found is not None:
        assert findings.read_perplexity(path) == found
        return
    with pytest.raises(InvalidArgument, match="perplexity.json has no perplexities .* give report.json of kvq eval"):
        findings.read_perplexity(path)


def test_the_command_writes_the_page(filled, tmp_path, capsys):
    out = tmp_path / "report.html"
    arguments = ["tune", "report", str(out), "--db", str(filled.path), "--bandwidth", "x86-64-v4=40", "--title", "Mine"]
    before = filled.path.read_bytes()
    assert main(arguments) == 0 and Page(out.read_text()).has("% of the roofline")
    assert filled.path.read_bytes() == before
    assert main([*arguments[:2], "-", *arguments[3:]]) == 0 and capsys.readouterr().out == out.read_text()
    for rate in ("40", "x=", "x=-1", "x=nan", "=3"):
        assert main(["tune", "report", str(out), "--db", str(filled.path), "--bandwidth", rate]) == 2
        assert f"--bandwidth is '{rate}': write a target and GB/s" in capsys.readouterr().err
