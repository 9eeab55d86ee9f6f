# SPDX-License-Identifier: Apache-2.0
"""A workload: one launch that the simulator counts, and how many elements of K and V it visits.

A JSON file. Its paths are relative to its folder. Either `arguments`, which the simulator is run with, or `report`, a
file of the simulator's JSON reports from another run of the same PTX (KVQ_PTXSIM_REPORT).

    {"about": "32k tokens, 8 KV heads", "grid": [16, 8, 1], "block": [128, 1, 1], "shared": 23552,
     "arguments": ["in:q.npy", "out:float32:8x64:o.npy", "u32:7"],
     "elements": 33554432, "elements_per_iteration": 2048, "bytes_in_flight": 1024}
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvq.errors import InvalidArgument
from kvq.inspect import tools

_FINDINGS = (0, 1, 3)  # of ptx-run: a report was written
_FILES = ("in:", "bytes:", "inout:")


@dataclass(frozen=True)
class Workload:
    grid: tuple[int, ...]
    block: tuple[int, ...]
    elements: int  # of K and V together that all warps visit
    elements_per_iteration: int | None = None  # of one warp in one iteration of the steady-state loop
    bytes_in_flight: int | None = None  # that one warp has asked for when it waits; None: estimated
    shared: int = 0  # dynamic
    arguments: tuple[str, ...] | None = None
    report: Path | None = None
    about: str = ""

    @property
    def threads(self) -> int:
        result = 1
        for size in self.block:
            result *= size
        return result


@dataclass(frozen=True)
class Counts:
    """What the simulator counted, of one launch or of several of the same kernel."""

    counters: dict[str, Any]
    lines: dict[int, int]  # executions by warps, of every line of an instruction
    lines_of_kernel: int
    lines_executed: int
    status: str
    findings: int


def read(path: Path) -> Workload:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"the workload {path} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise InvalidArgument(f"the workload {path} is no JSON object")
    try:
        return from_json(given, path.parent)
    except InvalidArgument as error:
        raise InvalidArgument(f"the workload {path}: {error}") from error


def from_json(given: Mapping[str, Any], folder: Path) -> Workload:
    known = set(Workload.__dataclass_fields__)
    if extra := sorted(set(given) - known):
        raise InvalidArgument(f"there is no field '{extra[0]}': the fields are {', '.join(sorted(known))}")
    for name in ("grid", "block", "elements"):
        if name not in given:
            raise InvalidArgument(f"'{name}' is missing")
    if ("arguments" in given) == ("report" in given):
        raise InvalidArgument("give either 'arguments' or 'report'")
    arguments = None
    if "arguments" in given:
        if not isinstance(given["arguments"], list) or not all(isinstance(a, str) for a in given["arguments"]):
            raise InvalidArgument("'arguments' is no list of texts")
        arguments = tuple(_placed(argument, folder) for argument in given["arguments"])
    return Workload(
        grid=_sizes(given, "grid"), block=_sizes(given, "block"), elements=_count(given, "elements", 1),
        elements_per_iteration=_optional(given, "elements_per_iteration"),
        bytes_in_flight=_optional(given, "bytes_in_flight"),
        shared=_count(given, "shared", 0) if "shared" in given else 0, arguments=arguments,
        report=folder / str(given["report"]) if "report" in given else None, about=str(given.get("about", "")),
    )  # fmt: skip


def _count(given: Mapping[str, Any], name: str, least: int) -> int:
    value = given[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidArgument(f"'{name}' is {value!r}: give an integer, {least} or more")
    return value


def _optional(given: Mapping[str, Any], name: str) -> int | None:
    return _count(given, name, 1) if given.get(name) is not None else None


def _sizes(given: Mapping[str, Any], name: str) -> tuple[int, ...]:
    sizes = given[name]
    good = isinstance(sizes, list) and 1 <= len(sizes) <= 3
    if not good or not all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in sizes):
        raise InvalidArgument(f"'{name}' is {sizes!r}: give one to three sizes")
    return tuple(sizes)


def _placed(argument: str, folder: Path) -> str:
    """Files that are read, relative to the folder. What a launch writes goes nowhere."""
    for word in _FILES:
        if argument.startswith(word):
            name, _, rest = argument.removeprefix(word).partition(":")
            return f"{word}{folder / name}{':' + rest if rest else ''}"
    return argument


def count(workload: Workload, ptx: str, kernel: str) -> Counts:
    if workload.report is not None:
        return _add([report for report in _reports(workload.report) if report.get("kernel") == kernel], kernel, ptx)
    with tempfile.TemporaryDirectory(prefix="kvq-inspect-") as name:
        folder = Path(name)
        (folder / "kernel.ptx").write_text(ptx, encoding="utf-8")
        command = [folder / "kernel.ptx", "--kernel", kernel, "--quiet", "--json", folder / "report.json"]
        command += ["--grid", ",".join(map(str, workload.grid)), "--block", ",".join(map(str, workload.block))]
        command += ["--shared", workload.shared] if workload.shared else []
        for index, argument in enumerate(workload.arguments or ()):
            command += ["--arg", _redirected(argument, folder / f"{index}.npy")]
        tools.run("ptx-run", command, _FINDINGS)
        return _add(_reports(folder / "report.json"), kernel, ptx)


def _redirected(argument: str, output: Path) -> str:
    """The argument with what the launch writes into a file that nobody keeps."""
    parts = argument.split(":")
    if parts[0] == "out" and len(parts) == 4:
        return ":".join([*parts[:3], str(output)])
    return argument


def _reports(path: Path) -> list[dict[str, Any]]:
    """All the JSON texts of a file, one behind the other."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(f"the report {path} cannot be read: {error}") from error
    decoder, reports, place = json.JSONDecoder(), [], 0
    while place < len(text.rstrip()):
        try:
            report, place = decoder.raw_decode(text, place)
        except ValueError as error:
            raise InvalidArgument(f"the report {path} is no JSON of the simulator: {error}") from error
        reports.append(report)
        place += len(text[place:]) - len(text[place:].lstrip())
    return reports


def _add(reports: list[dict[str, Any]], kernel: str, ptx: str) -> Counts:
    if not reports:
        raise InvalidArgument(f"the report has no launch of kernel '{kernel}'")
    counters: dict[str, Any] = {"classes": {}}
    lines: dict[int, int] = {}
    for report in reports:
        for name, value in report["counters"].items():
            if name == "classes":
                for group, number in value.items():
                    counters[name][group] = counters[name].get(group, 0) + number
            else:
                counters[name] = counters.get(name, 0) + value
        for line, warps, _ in report["lines"]:
            lines[line] = lines.get(line, 0) + warps
    bad = next((report["status"] for report in reports if report["status"] != "ok"), "ok")
    return Counts(
        counters, _of_statements(lines, ptx), len(lines), sum(warps > 0 for warps in lines.values()), bad,
        sum(report["findings_total"] for report in reports),
    )  # fmt: skip


def _of_statements(lines: Mapping[int, int], ptx: str) -> dict[int, int]:
    """The simulator counts an instruction on the line where it begins; ptxas gives a matrix product that LLVM wrote on
    several lines another of them. Here all lines of an instruction have its count."""
    result, open_count = dict(lines), None
    for number, text in enumerate(ptx.splitlines(), 1):
        count = lines.get(number, open_count)
        if count is not None:
            result[number] = count
        open_count = None if ";" in text.split("//")[0] else count
    return result
