"""What must be true of every rollout before it is learned from, whatever the model says: checked each step.

An invariant that is broken means a bug, in sampling, batching or the model: it is an alarm and the metric
``invariants/broken``, never a crash. That the sampler and the training forward agree, and that the update changed
the weights, are metrics of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessions.records import Group, Response

if TYPE_CHECKING:  # the engine imports this before it has torch
    from torch.nn import Parameter

    from engine.batches import Batch


@dataclass(frozen=True, slots=True)
class Broken:
    """One invariant that does not hold.

    :ivar what: in words.
    :ivar response: the name of the response; empty where it is of the whole step.
    """

    what: str
    response: str = ""

    def __str__(self) -> str:
        return f"{self.response} {self.what}".lstrip()


def audit_responses(groups: Iterable[Group], end_tokens: Set[int], max_new_tokens: int | None) -> list[Broken]:
    """Check each response's tokens.

    An end token closes a response if and only if it ``ended``, and stands nowhere else in it; one that was cut is
    ``max_new_tokens`` long; length, tokens, log-probabilities and ends agree.

    :param max_new_tokens: of the step that sampled them; None where it is not known.
    """
    broken = []
    for group in groups:
        for response in group.responses:
            broken += [
                Broken(what, f"{group.name}{response.letter}")
                for what in _wrong_with(response, end_tokens, max_new_tokens)
            ]
    return broken


def audit_questions(groups: Iterable[Group], held_out: Set[str]) -> list[Broken]:
    """Check that no group asks a question that is held out: evaluations are about what was never trained on.

    :param held_out: the texts of those.
    """
    return [
        Broken("asks a held-out question, which must not be trained on", g.name) for g in groups if g.prompt in held_out
    ]


def _wrong_with(response: Response, end_tokens: Set[int], max_new_tokens: int | None) -> Iterable[str]:
    tokens, n = response.tokens, response.length
    if not tokens or not len(tokens) == len(response.logprobs) == len(response.ends) == n:
        yield (
            f"has {len(tokens)} tokens, {len(response.logprobs)} log-probabilities, {len(response.ends)} ends "
            f"and length {n}"
        )
        return
    if not end_tokens.isdisjoint(tokens[:-1]):
        yield "goes on after its end token"
    closed = tokens[-1] in end_tokens
    if closed and not response.ended:
        yield "closes with an end token and counts as cut"
    if response.ended and not closed:
        yield "counts as ended and does not close with an end token"
    if max_new_tokens is not None:
        if not response.ended and n != max_new_tokens:
            yield f"was cut after {n} tokens, not {max_new_tokens}"
        elif n > max_new_tokens:
            yield f"has {n} tokens, over max_new_tokens {max_new_tokens}"


def widest(groups: Iterable[Group]) -> list[tuple[Group, Response]]:
    """The rows whose padding is widest: those with the longest and shortest prompt and response."""
    rows = [(g, r) for g in groups for r in g.responses if r.tokens and g.prompt_tokens]
    if not rows:
        return []
    ends: list[tuple[Group, Response]] = []
    for width in (lambda row: len(row[0].prompt_tokens), lambda row: len(row[1].tokens)):
        ends += [min(rows, key=width), max(rows, key=width)]
    return ends


def audit_mask(batch: Batch, rows: Sequence[tuple[Group, Response]]) -> list[Broken]:
    """Check that a training batch masks exactly each row's response tokens and attends to exactly its real ones.

    :param rows: that the batch was made of, in their order.
    """
    masks, attentions = batch.mask.tolist(), batch.attention.tolist()
    targets, ids = batch.targets.tolist(), batch.ids.tolist()
    broken = []
    for i, (group, response) in enumerate(rows):
        learned = [token for token, on in zip(targets[i], masks[i]) if on]
        seen = [token for token, on in zip(ids[i], attentions[i]) if on]
        name = f"{group.name}{response.letter}"
        if learned != response.tokens:
            broken.append(Broken(f"is learned as {len(learned)} tokens that are not its {len(response.tokens)}", name))
        elif seen != [*group.prompt_tokens, *response.tokens]:
            broken.append(Broken("is attended to beyond its prompt and tokens", name))
    return list(dict.fromkeys(broken))


def audit_parameters(parameters: Sequence[Parameter]) -> list[Broken]:
    """Check that something is trainable."""
    if not parameters:
        return [Broken("no parameter is trainable")]
    frozen = sum(not p.requires_grad for p in parameters)
    return [Broken(f"{frozen} of {len(parameters)} trained parameters take no gradient")] if frozen else []


def say_broken(broken: Sequence[Broken]) -> tuple[str, list[str]]:
    """A message and the names of the responses."""
    more = f" and {len(broken) - 2} more" if len(broken) > 2 else ""
    return "; ".join(str(b) for b in broken[:2]) + more, list(dict.fromkeys(b.response for b in broken if b.response))
