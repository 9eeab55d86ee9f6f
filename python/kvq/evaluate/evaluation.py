# SPDX-License-Identifier: Apache-2.0
"""One evaluation: a model, several caches, several figures, cut into measurements that are kept as they finish.

What decides a measurement's result is its key (kvq.evaluate.records); docs/evaluation.md says what takes part in which.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from kvq.errors import Error, FailedPrecondition, InternalError, InvalidArgument
from kvq.evaluate import allocator, machine, passkey, speed
from kvq.evaluate.caches import CacheKind
from kvq.evaluate.model import Subject
from kvq.evaluate.quality import Sums, log_probabilities, reference_sums, window_starts, window_sums
from kvq.evaluate.records import Key, Record, Records
from kvq.evaluate.settings import Settings
from kvq.lowlevel import Context

Say = Callable[[str], None]


class Reporter(Protocol):
    """Who is told how it goes on."""

    def begin(self, total: int, kept: int) -> None: ...

    def corrupt(self, path: Any, why: str) -> None: ...

    def unit(self, title: str) -> contextlib.AbstractContextManager[Say]: ...


@dataclass(frozen=True)
class Unit:
    """One measurement."""

    key: Key
    title: str
    work: Callable[[Say], dict[str, Any]]


@dataclass(frozen=True)
class Inputs:
    """What is measured. `fingerprint` is the model's (source.Source.fingerprint)."""

    subject: Subject
    fingerprint: str
    kinds: Sequence[CacheKind]
    text: str
    context: Context


class Evaluation:
    def __init__(self, inputs: Inputs, settings: Settings, records: Records) -> None:
        self.inputs, self.settings, self.records = inputs, settings, records
        self.subject = inputs.subject
        settings.check_positions(self.subject.positions())
        self.ids = self.subject.encode(inputs.text) if settings.needs_text() else torch.empty(1, 0, dtype=torch.long)
        self.starts = self._check_text()
        if settings.wants("passkey"):
            passkey.make_task(self._count_tokens, min(settings.contexts), 0, 0)  # refuses what is too short for any
        for kind in inputs.kinds:
            self._check_kind(kind)
        # Two texts of one meaning are measured once.
        self.kinds = list({kind.identity: kind for kind in reversed(inputs.kinds)}.values())[::-1]
        self._reference: tuple[int, torch.Tensor] | None = None
        self._states: speed.States | None = None

    def _count_tokens(self, text: str) -> int:
        return self.subject.encode(text).shape[1]

    def _check_text(self) -> list[int]:
        tokens, settings = self.ids.shape[1], self.settings
        if settings.wants("decode", "memory", "prefill") and tokens < max(settings.contexts):
            raise InvalidArgument(
                f"the text has {tokens} tokens and the longest context is {max(settings.contexts)}: take a longer text "
                "or a shorter context"
            )
        return window_starts(tokens, settings.windows, settings.tokens) if settings.wants("quality") else []

    @torch.inference_mode()
    def _check_kind(self, kind: CacheKind) -> None:
        """Runs one token: caches learn head sizes from the first forward, and may refuse them then."""
        try:
            cache = kind.make(self.subject.model.config)
            self.subject.model.base_model(input_ids=torch.ones(1, 1, dtype=torch.long), past_key_values=cache)
        except Error as error:
            raise type(error)(f"cache '{kind.text}' with {self.subject.name}: {error}") from error
        except Exception as error:
            raise FailedPrecondition(
                f"cache '{kind.text}' does not run with {self.subject.name} ({error}): leave it out"
            ) from error

    # -- measurements --------------------------------------------------------------------------------------------------

    def run(self, reporter: Reporter, fresh: bool = False) -> list[Record]:
        """All records, in order; only what is not there yet is measured, or everything where `fresh`."""
        units = list(self.units())
        if fresh:
            for unit in units:
                self.records.forget(unit.key)
        kept = {index: record for index, unit in enumerate(units) if (record := self.records.get(unit.key))}
        for path, why in self.records.corrupt:
            reporter.corrupt(path, why)
        reporter.begin(len(units), len(kept))
        found = []
        for index, unit in enumerate(units):
            found.append(kept[index] if index in kept else self._measure(unit, reporter))
        return found

    def _measure(self, unit: Unit, reporter: Reporter) -> Record:
        with reporter.unit(unit.title) as say:
            try:
                return self.records.measure(unit.key, lambda: unit.work(say))
            except Error as error:
                raise type(error)(f"{unit.title}: {error}") from error
            except Exception as error:
                raise InternalError(f"{unit.title} failed ({type(error).__name__}: {error}): leave this cache or "
                                    "metric out, what is finished is kept") from error

    def units(self) -> Iterator[Unit]:
        makers = {
            "quality": self._quality_units,
            "passkey": self._passkey_units,
            "memory": self._memory_units,
            "decode": self._decode_units,
            "prefill": self._prefill_units,
        }
        for metric in self.settings.metrics:
            yield from makers[metric]()

    def key(self, metric: str, cache: str | list[str] | None, **setting: Any) -> Key:
        return {
            "metric": metric,
            "cache": cache,
            "setting": setting,
            "model": self.inputs.fingerprint,
            "dtype": self.subject.dtype,
            "build": machine.build_identity(),
            "level": self.inputs.context.level,
            "versions": machine.versions("torch", "transformers", "optimum-quanto", "hqq"),
        }

    def _text_key(self) -> str:
        return hashlib.sha256(self.inputs.text.encode()).hexdigest()[:16]

    def _quality_units(self) -> Iterator[Unit]:
        length = self.settings.tokens
        for number, start in enumerate(self.starts):
            label = f"window {number + 1} of {len(self.starts)}"
            setting = {"text": self._text_key(), "start": start, "tokens": length}
            yield Unit(self.key("reference", None, **setting), f"{label}, full precision", self._reference_work(start))
            for kind in self.kinds:
                key = self.key("quality", kind.identity, **setting)
                yield Unit(key, f"{label}, {kind.text}", self._quality_work(start, kind))

    def _window(self, start: int) -> torch.Tensor:
        return self.ids[:, start : start + self.settings.tokens]

    def _reference_of(self, start: int, say: Say) -> torch.Tensor:
        if self._reference is None or self._reference[0] != start:
            self._reference = None  # before the next is made: one is hundreds of megabytes
            say("full precision")
            self._reference = (start, log_probabilities(self.subject, self._window(start)))
        return self._reference[1]

    def _reference_work(self, start: int) -> Callable[[Say], dict[str, Any]]:
        return lambda say: _finite(reference_sums(self._reference_of(start, say), self._window(start)))

    def _quality_work(self, start: int, kind: CacheKind) -> Callable[[Say], dict[str, Any]]:
        def work(say: Say) -> dict[str, Any]:
            reference = self._reference_of(start, say)
            say(kind.text)
            return _finite(window_sums(self.subject, reference, self._window(start), kind))

        return work

    def _passkey_units(self) -> Iterator[Unit]:
        settings = self.settings
        for length in settings.contexts:
            for kind in self.kinds:
                for depth in settings.depths:
                    key = self.key("passkey", kind.identity, context=length, depth=depth, trials=settings.trials)
                    title = f"passkey at {depth} % of {length} tokens, {kind.text}"
                    yield Unit(key, title, self._passkey_work(length, depth, kind))

    def _passkey_work(self, length: int, depth: int, kind: CacheKind) -> Callable[[Say], dict[str, Any]]:
        def work(say: Say) -> dict[str, Any]:
            tasks = []
            for trial in range(self.settings.trials):
                say(f"trial {trial + 1} of {self.settings.trials}")
                task = passkey.make_task(self._count_tokens, length, depth, trial)
                answer = passkey.ask(self.subject, task, kind)
                tasks.append({"key": task.key, "answer": answer, "right": passkey.matches(answer, task.key)})
            return {"tasks": tasks}

        return work

    def _prompt_states(self, say: Say) -> speed.States:
        if self._states is None:
            longest = max(self.settings.contexts)
            say(f"prompt of {longest} tokens in full precision")
            self._states = speed.prompt_states(self.subject, self.ids[:, :longest])
        return self._states

    def _cut(self, length: int, say: Say) -> speed.States:
        return speed.cut_states(self._prompt_states(say), length, self.settings.batch)

    def _memory_units(self) -> Iterator[Unit]:
        for length in self.settings.contexts:
            for kind in self.kinds:
                key = self.key("memory", kind.identity, context=length, batch=self.settings.batch)
                yield Unit(key, f"memory at {length} tokens, {kind.text}", self._memory_work(length, kind))

    def _memory_work(self, length: int, kind: CacheKind) -> Callable[[Say], dict[str, Any]]:
        def work(say: Say) -> dict[str, Any]:
            states = self._cut(length, say)
            say(kind.text)
            held, used = speed.held_bytes(kind.fill(self.subject.model.config, states))
            elements = speed.elements_per_token(states) * length * self.settings.batch
            return {"bytes_held": held, "bytes_used": used, "elements": elements}

        return work

    def _speed_key(self, metric: str, length: int, **setting: Any) -> Key:
        """Caches are compared inside one run, so all of them are one measurement; and the machine takes part."""
        where = {
            "processor": machine.processor(),
            "threads": torch.get_num_threads(),
            "kvq_threads": self.settings.threads,
            "allocator": allocator.settings(),
        }
        caches = [kind.identity for kind in self.kinds]
        return self.key(metric, caches, context=length, batch=self.settings.batch, machine=where, **setting)

    def _decode_units(self) -> Iterator[Unit]:
        for length in self.settings.contexts:
            key = self._speed_key("decode", length, steps=self.settings.steps)
            yield Unit(key, f"decoding at {length} tokens, {len(self.kinds)} caches in turn", self._decode_work(length))

    def _decode_work(self, length: int) -> Callable[[Say], dict[str, Any]]:
        def work(say: Say) -> dict[str, Any]:
            fills = {kind.identity: speed.filled(kind) for kind in self.kinds}
            states = self._cut(length, say)
            times, _ = speed.decode_times(self.subject, states, fills, self.settings.steps, say)
            return {"seconds": times}

        return work

    def _prefill_units(self) -> Iterator[Unit]:
        for length in self.settings.contexts:
            key = self._speed_key("prefill", length, rounds=self.settings.rounds)
            yield Unit(key, f"prompts of {length} tokens, {len(self.kinds)} caches in turn", self._prefill_work(length))

    def _prefill_work(self, length: int) -> Callable[[Say], dict[str, Any]]:
        def work(say: Say) -> dict[str, Any]:
            ids = self.ids[:, :length].expand(self.settings.batch, -1).contiguous()
            kinds = {kind.identity: kind for kind in self.kinds}
            return {"seconds": speed.prefill_times(self.subject, ids, kinds, self.settings.rounds, say)}

        return work


def _finite(sums: Sums) -> dict[str, Any]:
    if not math.isfinite(sums.nll) or not math.isfinite(sums.kl):
        raise FailedPrecondition(
            "the model's probabilities are not finite: load it with another --dtype, or check its weights"
        )
    return asdict(sums)
