"""What people prefer: responses to one prompt in an order, and the files that such preferences come in.

A file is JSON lines, each one of

- TRL's *preference* type: ``{"prompt", "chosen", "rejected"}``; without ``prompt`` it is what the two begin with alike,
  of conversations the messages that they share. ``margin`` is taken where there is one.
- A ranking: ``{"prompt", "completions": [...], "ranks": [1, 2, 2, 3]}``, 1 the best, tied responses sharing a rank.

Texts may be conversations: lists of ``{"role", "content"}``. Other columns are ignored.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec

from sessions.errors import InputFileError, InvalidValue
from sessions.examples import ROLES, Text
from sessions.records import Record

FORMS = 'give {"prompt": "...", "chosen": "...", "rejected": "..."}, one a line'
RANKING = 'give {"prompt": "...", "completions": ["...", "..."], "ranks": [1, 2]}, one a line'
LINE_LIMIT = 16 * 2**20
"""Bytes of a line."""
MOST = 64
"""Responses of a ranking."""
MOST_MARGIN = 100.0
HELD_OUT_SHARE = 5
"""One prompt in so many is held out."""
_TURN = "\n\nAssistant:"
"""Opens the answer in files that write a conversation as one text."""


class Ordering(Record):
    """What somebody prefers about the responses to one prompt.

    :ivar tiers: best first; tied responses share a tier. No tier is empty, and there are two responses or more.
    :ivar margin: how much better the first of two is: what its score should be above the other's, at least.
    :ivar source: where it is from: a line of a file, or the id of a rating.
    """

    prompt: Text
    tiers: list[list[Text]]
    margin: float = 0.0
    source: str = ""

    @property
    def responses(self) -> list[Text]:
        """All of them, best first."""
        return [response for tier in self.tiers for response in tier]

    @property
    def sizes(self) -> list[int]:
        """How many share each tier."""
        return [len(tier) for tier in self.tiers]

    @property
    def is_pair(self) -> bool:
        """Whether it is one response over one other."""
        return self.sizes == [1, 1]


def check_ordering(ordering: Ordering) -> None:
    """Refuse what is no ordering, of somebody who may send anything.

    :raises InvalidValue: saying what is wrong with it.
    """
    if sum(ordering.sizes) < 2 or not all(ordering.sizes):
        raise InvalidValue("a preference has two responses or more, and no empty tier")
    if sum(ordering.sizes) > MOST:
        raise InvalidValue(f"a preference of {sum(ordering.sizes)} responses; at most {MOST} are taken")
    if not 0 <= ordering.margin <= MOST_MARGIN:
        raise InvalidValue(f"margin: {ordering.margin:g} is out of bounds; allowed: 0 to {MOST_MARGIN:g}")
    for text in (ordering.prompt, *ordering.responses):
        if not isinstance(text, str) and not (text and all(map(_is_message, text))):
            raise InvalidValue("a preference's texts are text, or lists of messages with a role and a content")


def ordering_id(ordering: Ordering) -> str:
    """What an ordering is known by: the same words, wherever they are from, are the same ordering."""
    parts = [plain(ordering.prompt), repr(float(ordering.margin))]
    for tier in ordering.tiers:  # tied ones in any order
        parts += ["tier", *sorted(map(_said, tier))]
    return _digest(*parts)[:16].hex()


def better_worse(sizes: Iterable[int]) -> list[tuple[int, int]]:
    """(better, worse) for every two responses of different tiers, as places among all, best first.

    :param sizes: of the tiers.
    """
    tier_of = [k for k, size in enumerate(sizes) for _ in range(size)]
    return [(i, j) for i, j in combinations(range(len(tier_of)), 2) if tier_of[i] != tier_of[j]]


# --------------------------------------------------------------------------------------------- held out


def plain(text: Text) -> str:
    """A text, or a conversation as one; a single message of the user is what that message says."""
    if isinstance(text, str):
        return text
    if len(text) == 1 and text[0]["role"] == "user":
        return text[0]["content"]
    return "".join(f"\x1e{message['role']}\x1f{message['content']}" for message in text)


def held_out(prompt: Text) -> bool:
    """Whether comparisons about a prompt are for measuring reward models and never for training them.

    It depends on the prompt's text alone (blanks around it aside), so all that is ever said about one prompt, in any
    file or session, is on the same side: no reward model is measured on what it, or one before it, was trained on.
    """
    return int.from_bytes(_digest(plain(prompt).strip())[:8], "big") % HELD_OUT_SHARE == 0


def _digest(*parts: str) -> bytes:
    found = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        found.update(data if len(parts) == 1 else len(data).to_bytes(8, "big") + data)
    return found.digest()


# --------------------------------------------------------------------------------------------- counting


@dataclass(slots=True)
class Census:
    """What there is among some orderings.

    :ivar pairs: one response over one other.
    :ivar rankings: the others.
    :ivar ties: orderings in which some responses are tied.
    :ivar held_out: orderings about prompts that are held out.
    :ivar duplicates: preferences (each of two responses) that were stated before; they count again.
    :ivar contradictions: preferences of which the opposite was stated before, or between two equal texts.
    """

    pairs: int = 0
    rankings: int = 0
    ties: int = 0
    held_out: int = 0
    duplicates: int = 0
    contradictions: int = 0
    _seen: set[bytes] = field(default_factory=set, repr=False)

    @property
    def orderings(self) -> int:
        """All of them."""
        return self.pairs + self.rankings

    def add(self, ordering: Ordering) -> None:
        """Count one more."""
        self.pairs += ordering.is_pair
        self.rankings += not ordering.is_pair
        self.ties += max(ordering.sizes) > 1
        self.held_out += held_out(ordering.prompt)
        prompt, responses = plain(ordering.prompt), [_said(response) for response in ordering.responses]
        for i, j in better_worse(ordering.sizes):
            one, other = responses[i], responses[j]
            key = _digest(prompt, one, other)[:16]
            self.duplicates += key in self._seen
            self.contradictions += one == other or _digest(prompt, other, one)[:16] in self._seen
            self._seen.add(key)

    def describe(self) -> str:
        """``1,200 pairs, 10 rankings (3 with ties), 250 of them held out; 4 preferences stated twice``."""
        kinds = [f"{_count(self.pairs, 'pair')}"] if self.pairs or not self.rankings else []
        if self.rankings:
            kinds.append(f"{_count(self.rankings, 'ranking')}{f' ({self.ties:,} with ties)' if self.ties else ''}")
        text = f"{', '.join(kinds)}, {self.held_out:,} of them held out"
        if self.duplicates:
            text += f"; {_count(self.duplicates, 'preference')} stated more than once"
        if self.contradictions:
            text += f"; {_count(self.contradictions, 'preference')} of which the opposite is stated too"
        return text


def _said(response: Text) -> str:
    """A response as one text; the one message of an assistant is what it says."""
    if not isinstance(response, str) and len(response) == 1 and response[0]["role"] == "assistant":
        return response[0]["content"]
    return plain(response)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------------------------------------- reading


def write_kept(path: Path, orderings: Iterable[Ordering]) -> None:
    """Keep orderings in a file, one a line, as they are."""
    with path.open("xb") as file:
        for ordering in orderings:
            file.write(msgspec.json.encode(ordering) + b"\n")


def read_kept(path: Path) -> Iterator[Ordering]:
    """What :func:`write_kept` wrote; the file may come from anywhere.

    :raises InputFileError: naming the line.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_LIMIT + 1):
                number += 1
                try:
                    if len(line) > LINE_LIMIT:
                        raise ValueError(f"longer than {LINE_LIMIT:,} bytes")
                    ordering = msgspec.json.decode(line, type=Ordering)
                    if len(ordering.responses) < 2 or not all(ordering.tiers):
                        raise ValueError("it orders nothing")
                    if not 0 <= ordering.margin <= MOST_MARGIN:
                        raise ValueError("its margin is out of bounds")
                except (ValueError, RecursionError) as error:
                    raise InputFileError(f"{path}, line {number}: not an ordering ({error}); remove the file") from None
                yield ordering
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror})") from None


def read_orderings(path: Path) -> Iterator[Ordering]:
    """The orderings of a file, one after the other; at least one.

    :raises InputFileError: naming the line, what is wrong there and what it should be.
    """
    found = False
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_LIMIT + 1):
                number += 1
                if len(line) > LINE_LIMIT:
                    raise InputFileError(
                        f"preferences {path}, line {number}: longer than {LINE_LIMIT:,} bytes; shorten or remove it"
                    )
                if line.strip():
                    found = True
                    yield _Line(path, number).read(line)
    except OSError as error:
        raise InputFileError(f"preferences {path}: cannot be read ({error.strerror})") from None
    if not found:
        raise InputFileError(f"preferences {path}: the file is empty; {FORMS}")


def read_ordering(path: Path, number: int, line: bytes) -> Ordering:
    """The ordering of one line of a file.

    :raises InputFileError: as :func:`read_orderings`.
    """
    return _Line(path, number).read(line)


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a file."""

    path: Path
    number: int

    def read(self, line: bytes) -> Ordering:
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise self._wrong(f"not a JSON object ({error})") from None
        prompt, tiers = self._ranking(row) if "completions" in row else self._pair(row)
        sizes = [len(tier) for tier in tiers]
        return Ordering(
            prompt=prompt, tiers=tiers, margin=self._margin(row, sizes), source=f"{self.path.name}:{self.number}"
        )

    def _wrong(self, what: str, remedy: str = FORMS) -> InputFileError:
        return InputFileError(f"preferences {self.path}, line {self.number}: {what}; {remedy}")

    # ------------------------------------------------------------------------------------------- pairs

    def _pair(self, row: dict[str, Any]) -> tuple[Text, list[list[Text]]]:
        chosen, rejected = (self._text(row, name, empty=True) for name in ("chosen", "rejected"))
        if isinstance(chosen, str) != isinstance(rejected, str):
            raise self._wrong("of chosen and rejected, one is text and one a conversation", "make both the same")
        if row.get("prompt") is None:
            prompt, chosen, rejected = self._shared(chosen, rejected)
            return prompt, [[chosen], [rejected]]
        prompt = self._text(row, "prompt")
        if isinstance(prompt, str) and isinstance(chosen, list) and isinstance(rejected, list):
            if chosen[0] == rejected[0]:  # whole conversations beside the question they begin with
                prompt, chosen, rejected = self._shared(chosen, rejected)
            else:
                prompt = [{"role": "user", "content": prompt}]
        self._check_same(prompt, [chosen, rejected])
        return prompt, [[chosen], [rejected]]

    def _shared(self, chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
        """Prompt and both responses of a pair that states no prompt."""
        if chosen == rejected:
            raise self._wrong("chosen and rejected are the same, so nothing is preferred", "remove the line")
        length = _common(chosen, rejected)
        if isinstance(chosen, str) and isinstance(rejected, str):
            length = _end_of_prompt(chosen[:length])
            empty = not chosen[:length].strip()
        else:
            length = min(length, len(chosen) - 1, len(rejected) - 1)
            empty = length < 1
        if empty:
            raise self._wrong("there is no 'prompt', and chosen and rejected do not begin alike", "add the prompt")
        return chosen[:length], chosen[length:], rejected[length:]

    # ---------------------------------------------------------------------------------------- rankings

    def _ranking(self, row: dict[str, Any]) -> tuple[Text, list[list[Text]]]:
        prompt = self._text(row, "prompt", remedy=RANKING)
        completions, ranks = row["completions"], row.get("ranks")
        if not isinstance(completions, list) or not 2 <= len(completions) <= MOST:
            raise self._wrong(f"its completions are not a list of 2 to {MOST}", RANKING)
        responses = [self._as_text(f"completion {i}", c, empty=True) for i, c in enumerate(completions, 1)]
        self._check_same(prompt, responses)
        if not isinstance(ranks, list) or not all(_is_number(rank) for rank in ranks):
            raise self._wrong("its ranks are not a list of numbers", RANKING)
        if len(ranks) != len(completions):
            raise self._wrong(f"{len(ranks)} ranks for {len(completions)} completions", "give each of them one")
        return prompt, [
            [text for text, own in zip(responses, ranks, strict=True) if own == rank] for rank in sorted(set(ranks))
        ]

    # ------------------------------------------------------------------------------------------ values

    def _margin(self, row: dict[str, Any], sizes: list[int]) -> float:
        margin = row.get("margin")
        if margin is None:
            return 0.0
        if not _is_number(margin) or not 0 <= margin <= MOST_MARGIN:
            raise self._wrong(
                f"its margin is not a number from 0 to {MOST_MARGIN:g}",
                "the margin says how much better chosen is; leave it out where that is not known",
            )
        if margin and sizes != [1, 1]:
            raise self._wrong("a margin in a ranking", "only one response over one other has a margin; leave it out")
        return float(margin)

    def _text(self, row: dict[str, Any], name: str, *, empty: bool = False, remedy: str = FORMS) -> Text:
        if name not in row:
            raise self._wrong(f"there is no {name!r}", remedy)
        return self._as_text(name, row[name], empty=empty)

    def _as_text(self, name: str, value: object, *, empty: bool = False) -> Text:
        if isinstance(value, str):
            if not empty and not value.strip():
                raise self._wrong(f"its {name} is empty", "remove the line, or fill it")
            return value
        if not isinstance(value, list) or not value or not all(map(_is_message, value)):
            raise self._wrong(
                f"its {name} is neither text nor a list of messages",
                'a message is {"role": "user", "content": "..."}, with one of the roles ' + ", ".join(ROLES),
            )
        return [{"role": message["role"], "content": message["content"]} for message in value]

    def _check_same(self, prompt: Text, responses: Iterable[Text]) -> None:
        for response in responses:
            if isinstance(prompt, str) != isinstance(response, str):
                raise self._wrong("of prompt and responses, some are text and some conversations", "make all the same")


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and value.get("role") in ROLES and isinstance(value.get("content"), str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _common(one: Text, other: Text) -> int:
    """How many characters or messages two begin with alike."""
    same = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        same += 1
    return same


def _end_of_prompt(shared: str) -> int:
    """Where the prompt ends in what two texts begin with alike: at the answer's turn, or between two words."""
    turn = shared.rfind(_TURN)
    if turn >= 0:
        return turn + len(_TURN)
    words = shared.rstrip()
    inside_word = len(words) == len(shared)
    cut = max((words.rfind(blank) for blank in " \n\t"), default=-1) if inside_word else len(words)
    return cut if cut > 0 else len(shared)
