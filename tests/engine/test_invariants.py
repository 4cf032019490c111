"""What must be true of every rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.batches import make_batch
from engine.invariants import (
    Broken,
    audit_mask,
    audit_parameters,
    audit_questions,
    audit_responses,
    say_broken,
    widest,
)
from engine.learner import Learner
from sessions.records import Group, Response
from tests.engine.small import make_learner, rollout_group, small_task

END = frozenset({2, 3})
LENGTH = 5


def group() -> Group:
    """One response that ended, after 4 tokens, and one that was cut, after 5."""
    record = rollout_group((1.0, 0.0), (4, 5), step=8, number=3).record
    ended, cut = record.responses
    ended.tokens[-1], cut.ended = 2, False
    return record


def test_a_sound_rollout_breaks_nothing() -> None:
    assert audit_responses([group()], END, LENGTH) == []
    exact = group()
    exact.responses[1].tokens[-1], exact.responses[1].ended = 3, True
    assert audit_responses([exact], END, LENGTH) == []


def shorter(response: Response) -> None:
    response.length -= 1
    del response.tokens[0], response.logprobs[0], response.ends[0]


@pytest.mark.parametrize(
    ("place", "spoil", "what"),
    [
        (0, lambda r: r.tokens.__setitem__(1, 3), "goes on after its end token"),
        (1, lambda r: r.tokens.__setitem__(1, 2), "goes on after its end token"),
        (0, lambda r: r.tokens.__setitem__(3, 9), "counts as ended and does not close with an end token"),
        (0, lambda r: setattr(r, "ended", False), "closes with an end token and counts as cut"),
        (1, lambda r: setattr(r, "ended", True), "counts as ended and does not close with an end token"),
        (1, shorter, "was cut after 4 tokens, not 5"),
        (0, lambda r: r.logprobs.pop(), "has 4 tokens, 3 log-probabilities, 4 ends and length 4"),
        (0, lambda r: r.ends.append(9), "has 4 tokens, 4 log-probabilities, 5 ends and length 4"),
        (0, lambda r: setattr(r, "length", 3), "has 4 tokens, 4 log-probabilities, 4 ends and length 3"),
        (1, lambda r: r.tokens.clear(), "has 0 tokens, 5 log-probabilities, 5 ends and length 5"),
    ],
)
def test_each_broken_invariant_names_its_response(place: int, spoil: Callable[[Response], object], what: str) -> None:
    record = group()
    spoil(record.responses[place])
    found = audit_responses([group(), record], END, LENGTH)
    assert Broken(what, f"8.3{'AB'[place]}") in found
    assert {b.response for b in found} == {f"8.3{'AB'[place]}"}


def test_a_response_may_not_be_longer_than_the_limit_where_that_is_known() -> None:
    assert audit_responses([group()], END, 3) == [
        Broken("has 4 tokens, over max_new_tokens 3", "8.3A"),
        Broken("was cut after 5 tokens, not 3", "8.3B"),
    ]
    assert audit_responses([group()], END, None) == []


def rows() -> list[tuple[Group, Response]]:
    """Prompts of 3 and 1 tokens, responses of 4, 5 and 1; one token is the padding's."""
    other = rollout_group((1.0,), (1,), number=4, prompt_tokens=[0]).record
    return [(group(), r) for r in group().responses] + [(other, other.responses[0])]


def batch_of(pairs: list[tuple[Group, Response]]):
    prompts, tokens = [g.prompt_tokens for g, _ in pairs], [r.tokens for _, r in pairs]
    return make_batch(prompts, tokens, [1.0] * len(pairs), 0, torch.device("cpu"))


def test_the_mask_of_a_training_batch_covers_exactly_the_response() -> None:
    assert audit_mask(batch_of(rows()), rows()) == []


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda b: b.mask.__setitem__((0, 3), False), Broken("is learned as 3 tokens that are not its 4", "8.3A")),
        (lambda b: b.mask.__setitem__((2, 1), True), Broken("is learned as 2 tokens that are not its 1", "1.4A")),
        (lambda b: b.mask.__setitem__(2, torch.tensor([False, True, False, False, False])),
         Broken("is learned as 1 tokens that are not its 1", "1.4A")),
        (lambda b: b.attention.__setitem__((2, 0), 1), Broken("is attended to beyond its prompt and tokens", "1.4A")),
        (lambda b: b.attention.__setitem__((1, 4), 0), Broken("is attended to beyond its prompt and tokens", "8.3B")),
    ],
)  # fmt: skip
def test_a_wrong_mask_is_found(spoil: Callable[[object], object], found: Broken) -> None:
    pairs = rows()
    pairs[2][1].tokens[0] = 11
    batch = batch_of(pairs)
    spoil(batch)
    assert audit_mask(batch, pairs) == [found]


def test_the_rows_that_are_audited_are_the_longest_and_shortest() -> None:
    groups = [
        rollout_group((0.0, 1.0), lengths, number=n, prompt_tokens=range(1, 1 + width)).record
        for n, lengths, width in ((1, (3, 4), 5), (2, (1, 3), 6), (3, (3, 9), 6), (4, (3, 3), 9), (5, (3, 3), 2))
    ]
    chosen = {f"{g.name}{r.letter}" for g, r in widest(groups)}
    assert {"1.2A", "1.3B"} < chosen
    assert {name[:3] for name in chosen} == {"1.2", "1.3", "1.4", "1.5"}
    assert widest([]) == []


def test_something_is_trainable() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    assert audit_parameters(weights) == []
    assert audit_parameters([]) == [Broken("no parameter is trainable")]
    weights[1].requires_grad_(False)
    assert audit_parameters(weights) == [Broken("1 of 3 trained parameters take no gradient")]


def test_a_message_names_two_and_counts_the_rest() -> None:
    broken = [Broken("a", "8.3A"), Broken("b", "8.3A"), Broken("c"), Broken("d", "8.4B")]
    assert say_broken(broken) == ("8.3A a; 8.3A b and 2 more", ["8.3A", "8.4B"])
    assert say_broken(broken[2:3]) == ("c", [])


def test_a_learner_audits_what_it_sampled(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, save=False)
    groups = learner.sample(1)
    assert learner.audit(groups) == []
    spoiled = groups[1].record.responses[2]
    spoiled.ends.pop()
    assert [b.response for b in learner.audit(groups)] == [f"{groups[1].record.name}C"]
    learner.policy.parameters[0].requires_grad_(False)
    assert "take no gradient" in str(learner.audit(groups)[-1])


def test_a_late_group_may_be_of_another_length_limit(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, save=False, max_new_tokens=3)
    groups = learner.sample(1)
    assert any(not r.ended for g in groups for r in g.record.responses)
    longer = make_learner(tmp_path, save=False, max_new_tokens=6)
    assert {b.what for b in longer.audit(groups)} == {"was cut after 3 tokens, not 6"}
    for g in groups:
        g.late = True
    assert longer.audit(groups) == []


def test_a_held_out_question_that_is_trained_on_is_an_invariant_broken(tmp_path: Path) -> None:
    assert audit_questions([group()], {"another"}) == []
    (broken,) = audit_questions([group()], {group().prompt, "another"})
    assert str(broken) == "8.3 asks a held-out question, which must not be trained on"
    task = small_task()
    mixed = replace(task, evaluation=[*task.evaluation, task.prompts[0]])
    assert [b.what for b in audited(make_learner(tmp_path / "a", task=task))] == []
    assert "asks a held-out question" in audited(make_learner(tmp_path / "b", task=mixed, prompts_per_step=12))[0].what


def audited(learner: Learner) -> list[Broken]:
    """What is wrong with the first rollout."""
    learner.knobs.begin_step(1)
    learner.control.begin_step(1)
    return learner.audit(learner.sample(1))
