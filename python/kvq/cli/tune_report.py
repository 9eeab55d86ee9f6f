# SPDX-License-Identifier: Apache-2.0
"""`kvq tune report`: the database as a page."""

from __future__ import annotations

import math
from pathlib import Path

import click

from kvq.cli.output import write
from kvq.cli.tuning import database_option
from kvq.errors import InvalidArgument
from kvq.tune import findings
from kvq.tune.database import Database
from kvq.tune.report import render


@click.command("report", short_help="Write the database as one HTML page.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.html")
@database_option
@click.option("--bandwidth", "rates", multiple=True, metavar="TARGET=GB/S",
              help="What the memory of a target's machine reads, for rooflines; may be repeated. GPUs that kvq inspect "
                   "knows have theirs.")
@click.option("--perplexity", type=click.Path(path_type=Path), metavar="FILE.json",
              help="report.json of kvq eval, or an object of formats and perplexities.")
@click.option("--title", default="Tuned kernels", show_default=True)
def report(path: Path | None, file: Path, rates: tuple[str, ...], perplexity: Path | None, title: str) -> None:
    """Write what the database holds as one page without parts elsewhere; - is standard output.

    Tuned against default against roofline, distributions of samples, formats on the Pareto front, predictions against
    measurements, what failed and why.
    """
    bandwidth = dict(map(_rate, rates))
    known = findings.read_perplexity(perplexity) if perplexity else {}
    with Database(path, readonly=True) as database:
        page = render(findings.find(database, bandwidth, known), title)
    write(file, page)


def _rate(text: str) -> tuple[str, float]:
    """`x86-64-v4=40`"""
    target, _, rate = text.rpartition("=")
    try:
        value = float(rate)
    except ValueError:
        value = math.nan
    if not target or not (value > 0 and math.isfinite(value)):
        raise InvalidArgument(f"--bandwidth is '{text}': write a target and GB/s, as in x86-64-v4=40")
    return target, value * 1e9
