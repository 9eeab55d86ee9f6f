# SPDX-License-Identifier: Apache-2.0
"""Files that commands write where they are asked to."""

from __future__ import annotations

from pathlib import Path

import click

from kvq.errors import PermissionDenied


def write(file: Path, text: str) -> None:
    """`-` is standard output."""
    if str(file) == "-":
        click.echo(text, nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PermissionDenied(f"{file} cannot be written ({error.strerror or error}): give another file") from error
