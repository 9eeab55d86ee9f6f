# SPDX-License-Identifier: Apache-2.0
"""What `kvq tune` works for: a level of this processor, a GPU that is here, or one of the table of `kvq inspect`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.inspect import gpus
from kvq.tune.kernels import device_of

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Place:
    """`gpu`: the one that is predicted for; "" for what is here, and else for the oldest that runs the target."""

    target: str
    gpu: str = ""

    def context(self, store: str | None) -> lowlevel.Context | None:
        """Whose schedules and policies are chosen; None where the machine is not here."""
        device = None if self.gpu else device_of(self.target)
        return None if device is None else lowlevel.shared_context(device, self.target, store_dir=store)


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed([
        click.option("--target", metavar="TARGET", help="A level of this processor, or nvptx:sm_90 and the like: of a "
                     "GPU that is not here times are predicted.  [default: the best level of the device]"),
        click.option("--device", type=click.Choice(DEVICES), help="Where it is measured.  [default: what runs the "
                     "target]"),
        click.option("--gpu", metavar="NAME", help="Predict for this GPU of kvq inspect's table, such as H100, whatever "
                     "is here."),
    ]):  # fmt: skip
        command = option(command)
    return command


def place_of(target: str | None, device: str | None, gpu: str | None) -> Place:
    """Of what the command line says; kvq's own errors where there is no such place."""
    if gpu is not None:
        if device is not None:
            raise InvalidArgument(f"--gpu {gpu} is predicted for and --device {device} is measured: give one of them")
        known = gpus.gpu_of(gpu, target)
        return Place(target or f"nvptx:{known.architecture}", known.name)
    if device is not None:
        return Place(lowlevel.Context(device, level=target, threads=1, store_dir="").level)
    return Place(target or lowlevel.shared_context().level)
