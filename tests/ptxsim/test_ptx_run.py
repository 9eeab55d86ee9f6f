# SPDX-License-Identifier: Apache-2.0
"""ptx-run: arrays in and out, findings, counters, exit statuses, refusals."""
import json

import numpy as np
import pytest

from sim_env import ADD, ADD_LOAD_LINE, HEAD, ptx_run

# Each block of 32 threads waits at a barrier that one thread never reaches, and a loop that never ends.
STUCK = HEAD + """
.visible .entry forever() {
  AGAIN:
  bra AGAIN;
}
"""


@pytest.fixture()
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "add.ptx").write_text(ADD)
    (tmp_path / "stuck.ptx").write_text(STUCK)
    np.save("x.npy", np.arange(100, dtype=np.float32))
    return tmp_path


def add(count=100, grid=4, source="in:x.npy", target="out:float32:10x10:y.npy", options=()):
    return ptx_run("add.ptx", "--grid", grid, "--block", 32, "--arg", source, "--arg", target, "--arg", "f32:0.5",
                   "--arg", f"u32:{count}", *options)


def test_result_and_report(work):
    ran = add(options=("--json", "report.json"))
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_array_equal(np.load("y.npy"), (np.arange(100, dtype=np.float32) + 0.5).reshape(10, 10))
    report = json.loads((work / "report.json").read_text())
    assert report["status"] == "ok" and report["kernel"] == "add" and report["findings"] == []
    counters = report["counters"]
    assert counters["unique_global_bytes_read"] == counters["unique_global_bytes_written"] == 400
    assert counters["global_requests"] == 8 and counters["branches"] == 4 and counters["divergent_branches"] == 1
    assert sum(counters["classes"].values()) == counters["warp_instructions"]
    assert counters["warp_instructions"] == sum(warps for _, warps, _ in report["lines"])
    assert counters["thread_instructions"] == sum(threads for _, _, threads in report["lines"])
    assert report["coverage"]["missed"] == [] and report["coverage"]["lines"] == len(report["lines"])
    assert "kernel add: ok" in ran.stdout and "thread instructions" in ran.stdout


def test_reports_are_deterministic(work):
    first, second = (add(options=("--json", "-", "--seed", 7)).stdout for _ in range(2))
    assert first == second and json.loads(first)["status"] == "ok"


@pytest.mark.parametrize("source,check", [("in:x.npy", "bounds"), ("out:float32:128:z.npy", "uninit-memory")])
def test_findings(work, source, check):
    ran = add(count=110 if check == "bounds" else 100, source=source, target="fill:0:float32:128",
              options=("--json", "-"))
    assert ran.returncode == 1
    report = json.loads(ran.stdout)
    assert report["status"] == "findings" and report["findings_total"] >= 1
    finding = report["findings"][0]
    assert finding["check"] == check and finding["kernel"] == "add" and finding["line"] == ADD_LOAD_LINE
    assert set(finding) == {"check", "kernel", "line", "block", "warp", "lane", "space", "address", "allocation",
                            "message"}
    if check == "bounds":
        assert finding["block"] == [3, 0, 0] and finding["lane"] == 4 and finding["space"] == "global"
        assert "x.npy" in finding["allocation"] and int(finding["address"], 16) % 256 == 144
    quiet = add(count=110 if check == "bounds" else 100, source=source, target="fill:0:float32:128",
                options=("--checks", f"all,-{check}", "--quiet"))
    assert (quiet.returncode, quiet.stdout) == (0, "")


def test_an_input_is_not_written(work):
    ran = add(target="in:x.npy", options=("--json", "-"))
    assert ran.returncode == 1 and json.loads(ran.stdout)["findings"][0]["check"] == "bounds"


def test_in_place_and_fill(work):
    assert add(source="inout:x.npy:z.npy", target="fill:3:float32:100:f.npy").returncode == 0
    np.testing.assert_array_equal(np.load("z.npy"), np.load("x.npy"))
    assert np.load("f.npy")[99] == 99.5
    assert add(count=50, grid=2, target="fill:3:float32:100:f.npy").returncode == 0
    assert np.load("f.npy")[49:51].tolist() == [49.5, 3]


def test_listing(work):
    listing = add(count=96, grid=3, options=("--list", "--quiet")).stdout.splitlines()
    assert len(listing) == 1 + ADD.count("\n")
    loads = [line for line in listing if "ld.global" in line]
    assert loads[0].split()[:3] == [str(ADD_LOAD_LINE), "3", "96"]
    empty = add(count=0, options=("--list", "--quiet")).stdout
    assert "not executed" in [line for line in empty.splitlines() if "ld.global" in line][0]


def test_limit(work):
    ran = ptx_run("stuck.ptx", "--grid", 1, "--block", 32, "--limit", 1000, "--json", "-")
    report = json.loads(ran.stdout)
    assert ran.returncode == 3 and report["status"] == "limit" and "line" in report["message"]


REFUSED = [
    (("add.ptx", "--grid", 1), "--block is missing"),
    (("missing.ptx", "--grid", 1, "--block", 1), "cannot read missing.ptx"),
    (("add.ptx", "--grid", 0, "--block", 1), "--grid: '0' is no number"),
    (("add.ptx", "--grid", 1, "--block", 1), "has 4 parameters but 0 --arg"),
    (("add.ptx", "--grid", 1, "--block", 1, "--kernel", "sub"), "no kernel 'sub'"),
    (("add.ptx", "--grid", 1, "--block", 1, "--checks", "bound"), "no check 'bound'"),
    (("add.ptx", "--grid", 1, "--block", 1, "--mma", "fast"), "none of exact, sequential, truncate"),
    (("add.ptx", "--grid", 1, "--block", 1, "--arg", "u8:256"), "does not fit into type u8"),
    (("add.ptx", "--grid", 1, "--block", 1, "--arg", "f16:1e9"), "does not fit into type f16"),
    (("add.ptx", "--grid", 1, "--block", 1, "--arg", "u33:1"), "no scalar type 'u33'"),
    (("add.ptx", "--grid", 1, "--block", 1, "--arg", "out:float:3:y.npy"), "no element type 'float'"),
    (("add.ptx", "--grid", 1, "--block", 1, "--strange"), "no option --strange"),
]


@pytest.mark.parametrize("arguments,message", REFUSED)
def test_refusals(work, arguments, message):
    ran = ptx_run(*arguments)
    assert ran.returncode == 2 and ran.stdout == ""
    assert message in ran.stderr and ran.stderr.count("\n") == 1


def test_refused_launches_write_nothing(work):
    for ran in (add(options=("--shared", 1 << 25)), add(source="u64:5", target="in:none.npy"),
                add(source="f16:1")):
        assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert not (work / "y.npy").exists()


def test_refused_modules_name_file_and_line(work):
    (work / "bad.ptx").write_text(HEAD + ".visible .entry k() {\n  frobnicate.u32 1;\n  ret;\n}\n")
    ran = ptx_run("bad.ptx", "--grid", 1, "--block", 1)
    assert ran.returncode == 2 and ran.stderr.startswith("bad.ptx:5: ") and "frobnicate" in ran.stderr


def test_arrays_of_strangers(work):
    good = (work / "x.npy").read_bytes()
    for name, data in {"cut": good[:-1], "long": good + b"0", "header": good[:9], "magic": b"x" + good[1:],
                       "order": good.replace(b"False", b"True ").replace(b"(100,)", b"(10,10)"[:6]),
                       "big": good.replace(b"<f4", b">f4"), "object": good.replace(b"<f4", b"|O8"),
                       "huge": good.replace(b"(100,)", b"(9,9e")}.items():
        (work / f"{name}.npy").write_bytes(data)
        ran = add(source=f"in:{name}.npy")
        assert ran.returncode == 2 and f"{name}.npy" in ran.stderr, name
