# SPDX-License-Identifier: Apache-2.0
"""What an evaluation is asked to measure, and whether that can be. Imports neither torch nor transformers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kvq import lowlevel
from kvq.errors import InvalidArgument

METRICS = ("quality", "passkey", "memory", "decode", "prefill")
ANSWER_TOKENS = 8  # the most that an answer of a passkey may take: its digits one by one, and a few around them
_UNTIMED = 3  # positions that decoding needs beyond its timed steps: warming up
DEFAULT_TOKENS = 2048
DEFAULT_CONTEXTS = (1024, 4096)


@dataclass(frozen=True)
class Settings:
    """Lengths are in tokens, depths in percent. Each is explained in docs/evaluation.md."""

    metrics: tuple[str, ...] = METRICS
    windows: int = 3
    tokens: int = DEFAULT_TOKENS
    contexts: tuple[int, ...] = DEFAULT_CONTEXTS
    batch: int = 1
    depths: tuple[int, ...] = (0, 25, 50, 75, 100)
    trials: int = 1
    steps: int = 12
    rounds: int = 3
    threads: int = 0

    def wants(self, *metrics: str) -> bool:
        return any(metric in self.metrics for metric in metrics)

    def as_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def needs_text(self) -> bool:
        return self.wants("quality", "memory", "decode", "prefill")

    def check_positions(self, positions: int | None) -> None:
        """Refuses lengths beyond what a model was made for."""
        needed = {}
        if self.wants("quality"):
            needed[f"a window of {self.tokens}"] = self.tokens
        longest = max(self.contexts)
        extra = {"memory": 0, "prefill": 0, "passkey": ANSWER_TOKENS, "decode": self.steps + _UNTIMED}
        for metric, more in extra.items():
            if self.wants(metric):
                needed[f"{metric} at a context of {longest}"] = longest + more
        for what, tokens in needed.items():
            if positions is not None and tokens > positions:
                raise InvalidArgument(
                    f"{what} tokens needs {tokens} positions and the model has {positions}: take a shorter "
                    f"{'--tokens' if what.startswith('a window') else '--context'}"
                )


def parse_classes(text: str | None) -> list[str]:
    """Accuracy classes with commas between, each once; the default one for None."""
    if text is None:
        return [lowlevel.DEFAULT_ACCURACY]
    return list(dict.fromkeys(lowlevel.check_accuracy(name.strip()) for name in text.split(",")))


def default_tokens(positions: int | None) -> int:
    """Tokens of a window where nobody says how many."""
    return min(DEFAULT_TOKENS, positions or DEFAULT_TOKENS)


def default_contexts(positions: int | None, steps: int) -> tuple[int, ...]:
    """Context lengths that a model has room for, where nobody says which."""
    room = (positions or max(DEFAULT_CONTEXTS) * 2) - max(steps + _UNTIMED, ANSWER_TOKENS)
    return tuple(length for length in DEFAULT_CONTEXTS if length <= room) or (max(room, 1),)


def parse_metrics(text: str) -> tuple[str, ...]:
    """A comma-separated subset, in the order of METRICS."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    # The figures of one measurement may be asked for by their own names.
    figures = dict.fromkeys(("perplexity", "kl", "top1", "top-1"), ("quality",)) | {"speed": ("decode", "prefill")}
    wanted = {metric for name in names for metric in figures.get(name, (name,))}
    unknown = sorted(wanted - set(METRICS))
    if unknown or not wanted:
        raise InvalidArgument(
            f"metrics '{text}': {', '.join(unknown) or 'nothing'} is not one of {', '.join(METRICS)}"
        )
    return tuple(name for name in METRICS if name in wanted)


def parse_numbers(text: str, name: str, low: int, high: int) -> tuple[int, ...]:
    """Comma-separated whole numbers in a range, ascending, each once. "4k" is 4096."""
    numbers = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        digits, unit = (word[:-1], 1024) if word[-1] in "kK" else (word, 1)
        if not digits.isdigit() or not low <= int(digits) * unit <= high:
            raise InvalidArgument(f"{name} '{word}' is not a whole number from {low} to {high}")
        numbers.add(int(digits) * unit)
    if not numbers:
        raise InvalidArgument(f"{name} is empty: give numbers from {low} to {high}, with commas between")
    return tuple(sorted(numbers))
