# SPDX-License-Identifier: Apache-2.0
"""A chat of several turns on one cache: each turn feeds only what the cache does not hold yet.

Two lists of tokens keep it consistent: `ids`, the conversation, and `held`, what is in the cache. Where the next prompt
does not begin with what is held (a template that rewrites earlier turns, a turn that was taken back), the cache is
cropped to the common part, or made anew where it cannot be cropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import StoppingCriteria, TextStreamer
from transformers.cache_utils import Cache

from kvq.errors import Corrupt, FailedPrecondition, InvalidArgument, ResourceExhausted, Unsupported
from kvq.evaluate.caches import CacheKind
from kvq.evaluate.model import Subject
from kvq.evaluate.records import write_atomically
from kvq.evaluate.speed import held_bytes

PIECE = 512  # tokens of a prompt that go in at once: between two pieces a turn can be stopped
SCHEMA = "kvq-chat/1"


class ContextFull(ResourceExhausted):
    """The conversation has no room for this turn; nothing of it was kept."""


@dataclass(frozen=True)
class Turn:
    """`ended`: "stop" (the model ended its answer), "length" (no token more was allowed), "full" (the context is full),
    "interrupted" (stopped inside the answer, of which `answer` is kept) or "dropped" (stopped before it: the
    conversation is as it was)."""

    answer: str
    ended: str
    prompt_tokens: int  # tokens that had to be read in
    answer_tokens: int


@dataclass(frozen=True)
class Sampling:
    """temperature 0: the likeliest token always."""

    temperature: float = 0.0
    seed: int | None = None
    max_new_tokens: int = 512


class _Stream(TextStreamer):
    def __init__(self, tokenizer: Any, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._write(text)


class _Stop(StoppingCriteria):
    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        return torch.full((input_ids.shape[0],), self._stopped(), dtype=torch.bool)


class Conversation:
    def __init__(self, subject: Subject, kind: CacheKind, sampling: Sampling | None = None, system: str = "") -> None:
        self.subject, self.kind, self.sampling = subject, kind, sampling or Sampling()
        self.system = system
        if self.sampling.seed is not None:
            torch.manual_seed(self.sampling.seed)
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.messages: list[dict[str, str]] = [{"role": "system", "content": self.system}] if self.system else []
        self.ids: list[int] = []
        self._text = ""  # the template's text of `ids`, without the special token that ended the last answer
        self._renew()

    def _renew(self) -> None:
        self.cache: Cache = self.kind.make(self.subject.model.config)
        self.held: list[int] = []

    @property
    def templated(self) -> bool:
        """Whether the tokenizer has a chat template; without one, text is continued as it is."""
        return bool(getattr(self.subject.tokenizer, "chat_template", None))

    # -- a turn ------------------------------------------------------------------------------------------------------

    def ask(
        self,
        question: str,
        write: Callable[[str], None] = lambda text: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Turn:
        """One turn: `write` gets the answer piece by piece; it ends early once `stopped` says so."""
        messages = [*self.messages, {"role": "user", "content": question}]
        text, prompt = self._prompt(messages, question)
        positions = self.subject.positions()
        if positions is not None and len(prompt) >= positions:
            raise ContextFull(
                f"with this question the conversation has {len(prompt)} tokens and the model takes {positions}: "
                "ask something shorter or begin anew with /reset"
            )
        budget = self.sampling.max_new_tokens
        if positions is not None:
            budget = min(budget, positions - len(prompt))
        try:
            read = self._read_in(prompt, stopped)
            if read is None:
                return Turn("", "dropped", 0, 0)
            output = self._generate(prompt, budget, write, stopped)
        except BaseException:
            self._renew()  # which tokens it holds is not known
            raise
        new = output[len(prompt) :]
        answer = self.subject.tokenizer.decode(new, skip_special_tokens=True)
        self.ids, self._text = output, text + answer
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        return Turn(answer, self._ended(output, new, budget, stopped()), read, len(new))

    def _ended(self, output: list[int], new: list[int], budget: int, stopped: bool) -> str:
        if new and new[-1] in self._end_tokens():
            return "stop"
        if stopped:
            return "interrupted"
        return "full" if len(output) == self.subject.positions() else "length"

    def _prompt(self, messages: list[dict[str, str]], question: str) -> tuple[str, list[int]]:
        """The text and the tokens of the conversation up to where the next answer begins."""
        if not self.templated:
            text = self._text + question
            return text, self.ids + self._tokens(question, special=not self.ids)
        text = self.subject.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if not self.ids or not text.startswith(self._text):
            return text, self._tokens(text)
        rest = text[len(self._text) :]
        if self.ids[-1] in self._end_tokens():
            rest = rest.removeprefix(self.subject.tokenizer.decode(self.ids[-1:]))
        return text, self.ids + self._tokens(rest)

    def _tokens(self, text: str, special: bool = False) -> list[int]:
        return self.subject.tokenizer(text, add_special_tokens=special, verbose=False).input_ids

    def _end_tokens(self) -> set[int]:
        ends = self.subject.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return {end for end in (*ends, self.subject.tokenizer.eos_token_id) if end is not None}

    @torch.inference_mode()
    def _read_in(self, prompt: list[int], stopped: Callable[[], bool]) -> int | None:
        """Brings the cache to all but the last token of the prompt, in pieces. How many tokens that took, the last
        included; None where it was stopped."""
        self._keep(_common(self.held, prompt[:-1]))
        missing = len(prompt) - len(self.held)
        while len(self.held) < len(prompt) - 1:
            if stopped():
                return None
            piece = prompt[len(self.held) : min(len(self.held) + PIECE, len(prompt) - 1)]
            self.subject.model(
                input_ids=torch.tensor([piece]), past_key_values=self.cache, use_cache=True, logits_to_keep=1
            )
            self.held += piece
        return missing

    def _keep(self, tokens: int) -> None:
        """Takes the cache back to its first `tokens` tokens."""
        if tokens == len(self.held):
            return
        try:
            self.cache.crop(tokens - len(self.held))
            self.held = self.held[:tokens]
        except (NotImplementedError, RuntimeError, ValueError, AttributeError):  # kvq.Unsupported is the first of these
            self._renew()

    def _generate(
        self, prompt: list[int], budget: int, write: Callable[[str], None], stopped: Callable[[], bool]
    ) -> list[int]:
        ids = torch.tensor([prompt])
        sampled = self.sampling.temperature > 0
        options: dict[str, Any] = {"temperature": self.sampling.temperature} if sampled else {}
        ends = sorted(self._end_tokens())
        output = self.subject.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=self.cache,
            max_new_tokens=budget,
            do_sample=sampled,
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
            streamer=_Stream(self.subject.tokenizer, write),
            stopping_criteria=[_Stop(stopped)],
            **options,
        )[0].tolist()
        self.held = output[: self.cache.get_seq_length()]
        return output

    # -- what a user asks about the cache ---------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Tokens of the conversation and in the cache, bytes, and bits for each number of K and V."""
        result: dict[str, Any] = {"cache": self.kind.text, "tokens": len(self.ids), "tokens_in_cache": len(self.held)}
        result["positions"] = self.subject.positions()
        if not self.held:
            return {**result, "bytes_held": 0, "bytes_used": 0, "bits_per_element": None}
        held, used = held_bytes(self.cache)
        elements = len(self.held) * self._elements_per_token()
        return {**result, "bytes_held": held, "bytes_used": used, "bits_per_element": 8 * used / elements}

    def _elements_per_token(self) -> int:
        config = self.subject.model.config.get_text_config(decoder=True)
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return config.num_hidden_layers * 2 * config.num_key_value_heads * size

    # -- to a file and back -----------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """The cache's snapshot to `path`, what was said to `path`.chat.json beside it."""
        if not self.held:
            raise FailedPrecondition("there is nothing to save yet: ask something first")
        if not hasattr(self.cache, "save"):
            raise Unsupported(f"cache '{self.kind.text}' cannot be saved: this version has no snapshot of it")
        self.cache.save(path)
        state = {
            "schema": SCHEMA,
            "identity": self.kind.stored,
            "system": self.system,
            "messages": self.messages,
            "ids": self.ids,
            "held": self.held,
            "text": self._text,
        }
        write_atomically(_beside(path), json.dumps(state, indent=1) + "\n")

    def load(self, path: Path) -> None:
        """The conversation that `save` wrote; the one that runs is kept where that fails."""
        from kvq.hf import KVQCache

        state = _read_state(_beside(path))
        if state["identity"] != self.kind.stored:
            raise InvalidArgument(
                f"{path} holds a cache '{state['identity']}' where this chat has '{self.kind.stored}': start "
                "the chat with --cache of the former"
            )
        cache = KVQCache.open(path, self.subject.model.config, accuracy=self.kind.accuracy)
        if cache.get_seq_length() != len(state["held"]):
            raise Corrupt(
                f"{path} holds {cache.get_seq_length()} tokens where {_beside(path).name} says {len(state['held'])}: "
                "the two files are not of one conversation"
            )
        self.cache, self.held, self.ids = cache, state["held"], state["ids"]
        self.messages, self.system, self._text = state["messages"], state["system"], state["text"]


def _common(a: list[int], b: list[int]) -> int:
    for index, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return index
    return min(len(a), len(b))


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".chat.json")


def _read_state(path: Path) -> dict[str, Any]:
    fields = {"identity": str, "system": str, "messages": list, "ids": list, "held": list, "text": str}
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read ({error.strerror}): give a file that /save wrote") from None
    except ValueError as error:
        raise Corrupt(f"{path} is not a whole JSON document ({error}): give a file that /save wrote") from None
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise Corrupt(f"{path} is not a conversation of schema {SCHEMA}: give a file that /save wrote")
    wrong = [name for name, kind in fields.items() if not isinstance(state.get(name), kind)]
    if wrong:
        raise Corrupt(f"{path} has no proper {', '.join(wrong)}: give a file that /save wrote")
    return state
