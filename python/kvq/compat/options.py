# SPDX-License-Identifier: Apache-2.0
"""What the drop-in faces share: options that are honoured or refused by name, and how they become cache texts.

A published method says what it wants with options of its own. Each face reads them into a `Recipe`; a recipe becomes
cache texts (docs/format-spec.md, section 1) as soon as the head sizes are known. Whatever has no legal text is refused
in one sentence that names the option, its value and the nearest choice.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from kvq.errors import InvalidArgument, Unsupported

WIDTHS = (2, 3, 4, 8)
GROUPS = {"c": (32, 64, 128, 256), "t": tuple(range(16, 257, 16))}  # text_c2
LARGEST_WINDOW = 65536  # text_c3
WHOLE_HEAD = -1  # a group that is all channels of a head, in the options of KVTuner
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def nearest(value: int, choices: Iterable[int]) -> int:
    """The choice next to `value`; of two equally near ones the larger."""
    return min(choices, key=lambda choice: (abs(choice - value), -choice))


def unknown(kind: str, name: object, known: Iterable[str]) -> InvalidArgument:
    """The refusal of a name that does not exist, with those that look like it."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    said = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
    return InvalidArgument(f"{kind} {name!r} does not exist: {said}")


def integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{name} is {value!r}: give a whole number")
    return value


def flag(name: str, value: object) -> bool:
    """A bool and nothing that merely converts to one: argparse's type=bool makes True of the text "False"."""
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name} is {value!r}: give True or False")
    return value


def width(name: str, value: object) -> int:
    bits = integer(name, value)
    if bits == 16:
        raise Unsupported(
            f"{name} is 16, which means not quantized: kvq stores 2, 3, 4 or 8 bits, use transformers.DynamicCache for "
            "full precision or 8 as the nearest"
        )
    if bits not in WIDTHS:
        raise Unsupported(f"{name} is {bits}: kvq stores 2, 3, 4 or 8 bits, the nearest is {nearest(bits, WIDTHS)}")
    return bits


def cpu_device(name: str, value: object) -> None:
    """Accepts what means the CPU. Nothing else is ever turned into the CPU in silence."""
    try:
        device = torch.device("cpu" if value is None else value)  # type: ignore[arg-type]
    except (RuntimeError, TypeError):
        raise InvalidArgument(f'{name} is {value!r}, which is no device: give "cpu"') from None
    if device.type != "cpu":
        raise Unsupported(
            f'{name} is {str(device)!r}: this version of kvq runs on the CPU, give "cpu" and keep the model there'
        )


def compute_dtype(name: str, value: object) -> None:
    """Accepts the types that float32 arithmetic is at least as precise as."""
    dtype = getattr(torch, value, None) if isinstance(value, str) else value
    if dtype not in DTYPES:
        raise Unsupported(
            f"{name} is {value!r}: kvq computes in float32 and answers in the model's own type, give torch.float16, "
            "torch.bfloat16 or torch.float32"
        )


@dataclass(frozen=True)
class Recipe:
    """What a method's options ask for, before the head sizes are known."""

    widths: tuple[tuple[int, int], ...]  # bits of K and V: one entry for every layer, or one entry for all of them
    axes: tuple[str, str]  # of K and V: "c" per channel, "t" per token
    group: int  # WHOLE_HEAD: as many channels as a head has
    window: int
    rule: str
    per_layer: bool = False
    group_option: str = "q_group_size"
    window_option: str = "residual_length"

    def __post_init__(self) -> None:
        self._check_group()
        self._check_window()

    def _check_group(self) -> None:
        if self.group == WHOLE_HEAD:
            if "c" in self.axes:
                raise Unsupported(
                    f"{self.group_option} is -1, the whole head, which exists per token only, while "
                    f"{self._channel_side()} is quantized per channel: give 32, 64, 128 or 256"
                )
            return
        legal = self._legal_groups()
        if self.group not in legal:
            rule = "per token is a multiple of 16 channels, at most 256"
            if "c" in self.axes:
                rule = "per channel is 32, 64, 128 or 256 tokens"
            raise Unsupported(
                f"{self.group_option} is {self.group}: a group of kvq {rule}, the nearest is "
                f"{nearest(self.group, legal)}"
            )

    def _channel_side(self) -> str:
        return "K" if self.axes[0] == "c" else "V"

    def _legal_groups(self, sizes: tuple[int, int] | None = None) -> list[int]:
        """Groups that both sides take, with heads of these sizes."""
        legal = set(GROUPS[self.axes[0]]) & set(GROUPS[self.axes[1]])
        for axis, size in zip(self.axes, sizes or (), strict=sizes is not None):
            legal = {group for group in legal if axis == "c" or size % group == 0}
        return sorted(legal)

    def _check_window(self) -> None:
        step = self.group if "c" in self.axes else 1
        least = 1 if self.rule == "sliding" else 0
        least = step if "c" in self.axes else least
        if least <= self.window <= LARGEST_WINDOW and self.window % step == 0:
            return
        near = min(max(round(self.window / step) * step, least), LARGEST_WINDOW // step * step)
        said = f"a multiple of {self.group_option} = {self.group}, " if step > 1 else ""
        raise Unsupported(
            f"{self.window_option} is {self.window}: with these axes kvq takes {said}{least} to {LARGEST_WINDOW}, the "
            f"nearest is {near}"
        )

    @property
    def needs_head_size(self) -> bool:
        """Whether the texts differ from model to model."""
        return self.group == WHOLE_HEAD

    def check_sizes(self, dk: int, dv: int) -> None:
        """Refuses a group that heads of these sizes do not have."""
        for side, axis, size in (("K", self.axes[0], dk), ("V", self.axes[1], dv)):
            group = size if self.group == WHOLE_HEAD else self.group
            if axis == "t" and (group not in GROUPS["t"] or size % group):
                legal = self._legal_groups((dk, dv))
                near = f"the nearest is {nearest(group, legal)}" if legal else "no group fits it, use another cache"
                raise Unsupported(
                    f"{self.group_option} is {self.group}: {side} has heads of {size} channels, and a group per token "
                    f"is a multiple of 16, at most 256, that divides them; {near}"
                )

    def texts(self, dk: int, dv: int) -> list[str]:
        """The cache text of each entry of `widths`, for heads of these sizes."""
        self.check_sizes(dk, dv)
        groups = [size if self.group == WHOLE_HEAD else self.group for size in (dk, dv)]
        return [
            f"k{k}{self.axes[0]}{groups[0]}-v{v}{self.axes[1]}{groups[1]}/w{self.window},{self.rule}"
            for k, v in self.widths
        ]


class Options:
    """Base of the faces' configuration objects: a dataclass whose unknown names are refused, with the nearest ones,
    in the constructor, in a dictionary and when an attribute is set."""

    METHOD: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        for name in options:
            self._known(name)
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            setattr(self, field.name, options.get(field.name, field.default))
        self.check()

    def __setattr__(self, name: str, value: Any) -> None:
        self._known(name)
        super().__setattr__(name, value)

    def _known(self, name: str) -> None:
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        if name not in names:
            raise unknown(f"option of {type(self).__name__}", name, names)

    def check(self) -> None:
        """Refuses what no cache of this method can honour."""
        raise NotImplementedError

    @classmethod
    def of(cls, options: Any) -> Any:
        """The options themselves, or those that a dictionary spells out."""
        if isinstance(options, cls):
            return options
        if isinstance(options, Mapping):
            return cls(**{str(name): value for name, value in options.items()})
        raise InvalidArgument(f"the configuration is {options!r}: give a {cls.__name__} or a dictionary of its options")

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
