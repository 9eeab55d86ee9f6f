# SPDX-License-Identifier: Apache-2.0
"""`kvq inspect kernel`: reports of kernels with and without a workload, and what it says to bad input."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import schema
from inspect_tools import needs_machine_code
from kvq.cli import inspect_main, main

TILES = Path(__file__).resolve().parent / "sass" / "tiles.ptx"
COUNT = 50  # tiles of 512 bytes


@pytest.fixture(name="work")
def workload(tmp_path):
    """Writes a workload of the kernel `tiles`, changed as asked for; None leaves a field out."""

    def write(**changes):
        np.save(tmp_path / "words.npy", np.ones(COUNT * 128, np.uint32))
        given = {
            "about": "fifty tiles", "grid": [1], "block": [32], "elements": COUNT * 1024,
            "arguments": ["in:words.npy", "out:float32:96:o.npy", f"u32:{COUNT}", "u32:1"],
        } | changes  # fmt: skip
        file = tmp_path / "work.json"
        present = {name: value for name, value in given.items() if value is not None}
        file.write_text(json.dumps(present), encoding="utf-8")
        return str(file)

    return write


def report(tmp_path, *arguments):
    file = tmp_path / "report.json"
    assert main(["inspect", "kernel", *arguments, "--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert schema.wrong(found) == ""
    return found


@needs_machine_code
def test_without_a_workload(tmp_path, capsys):
    found = report(tmp_path, str(TILES), "--target", "nvptx:sm_90")
    assert (found["kernel"], found["target"]) == ("tiles", "nvptx:sm_90")
    assert found["counters"] is None and found["predicted"] is None
    assert found["occupancy"]["threads"] == 32 and found["occupancy"]["limiter"] == "blocks"
    assert found["loop"]["chosen_by"] == "matrix instructions" and found["loop"]["classes"]["HMMA"] == 2
    text = capsys.readouterr().out
    assert "counters: none, without --workload nothing is executed" in text and "predicted: nothing" in text


@needs_machine_code
def test_with_a_workload(tmp_path, work, capsys):
    found = report(tmp_path, str(TILES), "--workload", work(), "--target", "nvptx:sm_120")
    counters, loop = found["counters"], found["loop"]
    assert counters["status"] == "ok" and counters["findings"] == 0
    # Of every tile 512 bytes, 16 whole sectors in one request; the stores of one word to one place are the other ones.
    assert counters["bytes_per_element"]["read_unique"] == 0.5
    assert counters["bytes_per_element"]["written_unique"] == pytest.approx((32 + 1 + 1) * 4 / (COUNT * 1024))
    requests = COUNT + COUNT + 1 + 1
    assert counters["sectors_per_request"] == pytest.approx((16 * COUNT + COUNT + 1 + 4) / requests)
    assert counters["bytes_per_element"]["requested"] == pytest.approx((16 * COUNT + COUNT + 5) * 32 / (COUNT * 1024))
    used = (512 * COUNT + 4 * COUNT + 4 + 128) / ((16 * COUNT + COUNT + 5) * 32)
    assert counters["sector_share_used"] == pytest.approx(used)
    assert counters["coverage"]["executed"] == counters["coverage"]["lines"]
    assert counters["ptx_instructions_per_element_by_class"]["mma"] == 32 * 2 * COUNT / (COUNT * 1024)
    assert loop["chosen_by"] == "executions of PTX lines" and loop["iterations"] == COUNT
    assert loop["elements_per_iteration"] == 1024 and loop["elements_per_iteration_from"] == "elements / iterations"
    assert loop["thread_instructions_per_element"] == pytest.approx(32 * loop["issue_slots"] / 1024)
    assert loop["classes"]["MUFU"] == pytest.approx(5 / COUNT)
    text = capsys.readouterr().out
    assert "PREDICTED for 51200 elements: predicted from peak rates and static counts, not measured" in text


@needs_machine_code
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_120"])
def test_loop_that_tests_at_its_top(tmp_path, target):
    """Proves the count of iterations on a real run: 3 tiles of each of 5 warps, whatever lines the branches have."""
    np.save(tmp_path / "words.npy", np.ones(3 * 128, np.uint32))
    (tmp_path / "work.json").write_text(json.dumps({
        "grid": [5], "block": [32], "elements": 5 * 3 * 1024, "elements_per_iteration": 1024,
        "arguments": ["in:words.npy", "out:float32:32:o.npy", "u32:3"],
    }), encoding="utf-8")  # fmt: skip
    top = str(TILES.with_name("top.ptx"))
    loop = report(tmp_path, top, "--workload", str(tmp_path / "work.json"), "--target", f"nvptx:{target}")["loop"]
    assert (loop["iterations"], loop["share_of_elements"]) == (15, 1)


@needs_machine_code
def test_predictions(tmp_path, work, capsys):
    given = work(elements_per_iteration=512, bytes_in_flight=2048)
    found = report(tmp_path, str(TILES), "--workload", given, "--elements", "1000000")
    assert found["loop"]["elements_per_iteration_from"] == "workload" and found["loop"]["share_of_elements"] == 0.5
    predicted = found["predicted"]
    assert predicted["elements"] == 10**6
    assert [row["gpu"] for row in predicted["gpus"]] == ["A100", "H100", "H200", "RTX 4090", "L4", "B200", "RTX 5090"]
    for row in predicted["gpus"]:
        by = row["predicted_us_by"]
        assert row["predicted_us"] == max(by.values()) == by[row["predicted_limiter"]]
        assert row["predicted_bandwidth_share"] == pytest.approx(row["predicted_us_by"]["memory"] / row["predicted_us"])
        assert row["predicted_bytes_in_flight"] == 2048 * row["warps"]
        # Every figure of a row says that it is predicted, but for what is known.
        assert all(name.startswith("predicted") or name in ("gpu", "architecture", "warps", "sources") for name in row)
    # Every line of the table stands under a heading that says so.
    table = capsys.readouterr().out.split("PREDICTED for 1000000 elements")[1]
    assert "predicted us" in table and "predicted limiter" in table
    later = report(tmp_path, str(TILES), "--workload", work(), "--target", "nvptx:sm_100")
    assert [row["gpu"] for row in later["predicted"]["gpus"]] == ["B200", "RTX 5090"]


@needs_machine_code
def test_a_faulty_run_says_so(tmp_path, work, capsys):
    beyond = work(arguments=["in:words.npy", "out:float32:40:o.npy", f"u32:{COUNT}", "u32:1"])
    found = report(tmp_path, str(TILES), "--workload", beyond, "--target", "nvptx:sm_120")
    assert found["counters"]["status"] == "findings" and found["counters"]["findings"] > 0
    assert "the counters are of a faulty run" in capsys.readouterr().out


@needs_machine_code
def test_reports_of_another_run(tmp_path, work):
    """What the simulator appended for every launch of a program; those of other kernels do not count."""
    once = report(tmp_path, str(TILES), "--target", "nvptx:sm_120")
    lines = [[i, 0, 0] for i in range(3)]
    base = {"status": "ok", "kernel": "tiles", "findings": [], "findings_total": 0, "lines": [[20, 7, 7], [21, 0, 0]],
            "counters": {"warp_instructions": 10, "global_requests": 2, "global_sectors": 8, "global_bytes": 256,
                         "shared_requests": 0, "bank_conflicts": 0, "unique_global_bytes_read": 256,
                         "unique_global_bytes_written": 0, "classes": {"mma": 2}}}  # fmt: skip
    runs = base, base | {"kernel": "x", "lines": lines}, base
    (tmp_path / "runs.json").write_text("\n".join(map(json.dumps, runs)))
    given = work(arguments=None, report="runs.json", elements=64)
    found = report(tmp_path, str(TILES), "--workload", given, "--target", "nvptx:sm_120")
    assert found["counters"]["ptx_instructions_per_element"] == 32 * 20 / 64
    assert found["counters"]["sector_share_used"] == 1 and found["counters"]["coverage"] == {"lines": 2, "executed": 1}
    assert once["resources"] == found["resources"]


@needs_machine_code
def test_bank_conflicts_take_time(tmp_path, work):
    """A whole kernel's conflicts are spread over its elements, each a clock of one multiprocessor."""
    counters = {"warp_instructions": 10, "global_requests": 0, "global_sectors": 0, "global_bytes": 0,
                "shared_requests": 9, "unique_global_bytes_read": 64, "unique_global_bytes_written": 0,
                "classes": {"mma": 2}}  # fmt: skip
    times = []
    for conflicts in (0, 1000):
        run = {"status": "ok", "kernel": "tiles", "findings": [], "findings_total": 0, "lines": [],
               "counters": counters | {"bank_conflicts": conflicts}}  # fmt: skip
        (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
        given = work(arguments=None, report="run.json", elements=100, elements_per_iteration=10)
        found = report(tmp_path, str(TILES), "--workload", given, "--target", "nvptx:sm_120")
        times.append(found["predicted"]["gpus"][0]["predicted_us_by"]["load/store"])
    assert times[1] - times[0] == pytest.approx(1000 / (170 * 2407e6) * 1e6)


@needs_machine_code
def test_json_alone_on_standard_output(capsys):
    assert main(["inspect", "kernel", str(TILES), "--json", "-"]) == 0
    assert schema.wrong(json.loads(capsys.readouterr().out)) == ""


@needs_machine_code
def test_block_that_nothing_says(tmp_path, capsys):
    file = tmp_path / "k.ptx"
    file.write_text(TILES.read_text(encoding="utf-8").replace(".reqntid 32, 1, 1", ""), encoding="utf-8")
    assert main(["inspect", "kernel", str(file)]) == 0
    assert "not known: give --block" in capsys.readouterr().out
    assert main(["inspect", "kernel", str(file), "--block", "256"]) == 0
    assert "of 256 threads" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gone.ptx"], "gone.ptx cannot be read: .*No such file"),
        (["kernel"], "'kernel' is neither a file FILE.ptx nor a request, which has colons in it"),
        ([str(TILES), "--target", "sm_80"], "there is no target 'sm_80': use one of nvptx:sm_80"),
        ([str(TILES), "--workload", "gone.json"], "the workload gone.json cannot be read"),
        ([str(TILES), "--kernel", "other"], "there is no kernel 'other' in the PTX: it has tiles"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    assert main(["inspect", "kernel", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search("^kvq: " + message, said)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"grid": None}, "'grid' is missing"),
        ({"grid": [0]}, r"'grid' is \[0\]: give one to three sizes"),
        ({"block": [1, 1, 1, 1]}, "give one to three sizes"),
        ({"elements": 0}, "'elements' is 0: give an integer, 1 or more"),
        ({"elements": "many"}, "'elements' is 'many'"),
        ({"arguments": None}, "give either 'arguments' or 'report'"),
        ({"arguments": [1]}, "'arguments' is no list of texts"),
        ({"tokens": 7}, "there is no field 'tokens': the fields are about, arguments, block"),
        ({"arguments": ["in:gone.npy", "out:float32:96:o.npy", "u32:1", "u32:1"]}, "ptx-run ended with 2.*gone.npy"),
    ],
)
def test_bad_workloads(changes, message, work, capsys):
    assert main(["inspect", "kernel", str(TILES), "--workload", work(**changes)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(message, said), said


def test_report_of_no_such_kernel(tmp_path, work, capsys):
    (tmp_path / "runs.json").write_text('{"kernel": "other"}')
    assert main(["inspect", "kernel", str(TILES), "--workload", work(arguments=None, report="runs.json")]) == 2
    assert "the report has no launch of kernel 'tiles'" in capsys.readouterr().err
    (tmp_path / "runs.json").write_text('{"kernel": ')
    assert main(["inspect", "kernel", str(TILES), "--workload", work(arguments=None, report="runs.json")]) == 2
    assert "is no JSON of the simulator" in capsys.readouterr().err


def test_own_command_is_the_same(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["kvq-inspect", "kernel", "gone.ptx"])
    assert inspect_main() == 2 and "gone.ptx cannot be read" in capsys.readouterr().err


def test_request_goes_to_the_compiler(monkeypatch, tmp_path, capsys):
    compiler = tmp_path / "kvqc"
    compiler.write_text('#!/bin/sh\necho "kvqc: error: got $*" >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("KVQ_KVQC", str(compiler))
    assert main(["inspect", "kernel", "attend:k4c32-v4t32:mma", "--target", "nvptx:sm_89"]) == 2
    said = capsys.readouterr().err
    assert "kvqc: error: got --target=nvptx:sm_89 --request=attend:k4c32-v4t32:mma --no-bundle" in said
    assert main(["inspect", "kernel", "attend:k4c32-v4t32:mma", "--schedule", "tile_tokens=64"]) == 2
    assert "--request=attend:k4c32-v4t32:mma --schedule=tile_tokens=64 --no-bundle" in capsys.readouterr().err
    assert main(["inspect", "kernel", str(TILES), "--schedule", "tile_tokens=64"]) == 2
    assert f"--schedule is of requests, and {TILES} is a file: leave it out" in capsys.readouterr().err
