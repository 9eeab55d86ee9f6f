# SPDX-License-Identifier: Apache-2.0
"""`kvq inspect kernel`: what a kernel for NVIDIA GPUs costs, without a GPU."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from kvq.cli.output import write
from kvq.errors import InvalidArgument
from kvq.inspect import attend, gpus, inspect_kernel, requests, text, workload


@click.group("inspect", short_help="Show what a kernel costs, without running it on a GPU.")
def inspect() -> None:
    """Static reports. They are counts and predictions, never measurements."""


@inspect.command("kernel", short_help="Registers, occupancy, bytes, instructions, predicted times of a GPU kernel.")
@click.argument("subject", metavar="FILE.ptx|REQUEST")
@click.option("--target", metavar="TARGET", default="nvptx:sm_80", show_default=True, help="What it is compiled for.")
@click.option("--workload", "work", metavar="FILE.json|SIZE",
              help="A launch for the simulator: counters, executions, predictions. SIZE, for a request: "
                   "tokens=N[,heads=N][,splits=N].")
@click.option("--schedule", metavar="TEXT",
              help="Of a request, one of kvqc --list-schedules; default: the default one.")
@click.option("--kernel", metavar="NAME", help="Which kernel, where the PTX has several.")
@click.option("--block", type=click.IntRange(1, 1024), metavar="N", help="Threads of a block, where nothing else says.")
@click.option("--elements", type=click.IntRange(1), metavar="N",
              help="Elements of K and V that times are predicted for; default: the workload's.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the report as JSON; -: instead of the table.")
def kernel(
    subject: str, target: str, work: str | None, schedule: str | None, kernel: str | None, block: int | None, elements: int | None,
    json_file: Path | None,
) -> None:  # fmt: skip
    """Show what a kernel costs: registers, spills, shared memory, occupancy; with a workload also bytes, sectors and
    conflicts; instructions of its steady-state loop by class; and predicted times of several GPUs.

    FILE.ptx is a PTX text, anything else a request such as
    attend:k4c32-v4t32:mma:p128:dk128:dv128:g4:f16:rows8:lag0:win0:cap0:exact, which is compiled first.
    """
    architecture = gpus.architecture_of(target)
    compiled = read_subject(subject, target, schedule)
    with tempfile.TemporaryDirectory(prefix="kvq-inspect-") as folder:
        load, less = read_workload(work, subject, compiled, Path(folder)) if work else (None, None)
        report = inspect_kernel(
            compiled.ptx, architecture, kernel=kernel, work=load, less=less, threads=block, elements=elements,
            source=subject,
        )  # fmt: skip
    if json_file:
        write(json_file, json.dumps(report, indent=1) + "\n")
    if str(json_file) != "-":
        click.echo(text.render(report), nl=False)


def read_subject(subject: str, target: str, schedule: str | None) -> requests.Compiled:
    """The PTX of a file or of a request."""
    if subject.endswith(".ptx"):
        if schedule:
            raise InvalidArgument(f"--schedule is of requests, and {subject} is a file: leave it out")
        try:
            return requests.Compiled(Path(subject).read_text(encoding="utf-8"), "")
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{subject} cannot be read: {error}") from error
    if ":" not in subject:
        raise InvalidArgument(f"'{subject}' is neither a file FILE.ptx nor a request, which has colons in it")
    return requests.compile_request(subject, target, schedule)


def read_workload(
    given: str, subject: str, compiled: requests.Compiled, folder: Path
) -> tuple[workload.Workload, workload.Workload | None]:
    """A file, or the size of workloads that are made for the request in the folder: all of it and half of it."""
    if "=" in given and not subject.endswith(".ptx"):
        return attend.workloads(subject, compiled, attend.parse_size(given), folder)
    return workload.read(Path(given)), None
