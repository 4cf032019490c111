"""Prompts that do not fit into the model's context are left out before training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.tasks import Prompt, Task, context, load_task
from engine.tasks.context import fit
from sessions.errors import UsageError
from tests.engine.small import random_policy, small_task

POLICY = random_policy()


def of_lengths(*lengths: int) -> Task:
    """Prompts of so many characters, each of which is a token."""
    prompts = [Prompt(f"p{i}", chr(97 + i % 20) * n, "") for i, n in enumerate(lengths)]
    return replace(small_task(), prompts=prompts, evaluation=prompts[:1])


def limited(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    monkeypatch.setattr(POLICY.model.config, "max_position_embeddings", tokens)


def test_the_limit_is_the_configurations() -> None:
    assert POLICY.context == POLICY.model.config.max_position_embeddings


def test_exactly_those_that_fit_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bos = len(POLICY.encode_prompt("a")) - 1
    limited(monkeypatch, 100 + bos)
    task = fit(of_lengths(10, 90, 91, 40, 400), POLICY, 10)
    assert [len(p.text) for p in task.prompts] == [10, 90, 40]
    assert len(task.evaluation) == 1
    assert task.notes == (f"2 prompts left out: longer than the model's context of {100 + bos} tokens less the 10 of "
                          "max_new_tokens",)  # fmt: skip


def test_nothing_is_said_where_all_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 100)
    task = of_lengths(10, 20)
    assert fit(task, POLICY, 10) is task


def test_held_out_prompts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 100)
    task = fit(of_lengths(300, 20), POLICY, 10)
    assert (len(task.prompts), len(task.evaluation)) == (1, 0)
    assert "1 prompts and 1 held-out prompts left out" in task.notes[0]


def test_where_none_fits_the_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 50)
    with pytest.raises(UsageError, match="none of its 2 prompts fits into the model's context of 50 tokens"):
        fit(of_lengths(200, 300), POLICY, 10)
    with pytest.raises(UsageError, match="max_new_tokens=60"):
        fit(of_lengths(2, 3), POLICY, 60)


def test_rows_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 100)
    path = tmp_path / "a.jsonl"
    rows = [{"prompt": f"{i}" + "x" * (200 if i % 3 == 0 else 20), "answer": str(i)} for i in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)))
    task = load_task(str(path), 0)
    fitted = fit(task, POLICY, 10)
    kept = {p.text for p in (*fitted.prompts, *fitted.evaluation)}
    assert kept == {row["prompt"] for i, row in enumerate(rows) if i % 3}
    assert {p.id for p in fitted.prompts} <= {p.id for p in task.prompts}, "the split is the same for every model"


def test_of_very_many_long_prompts_only_the_longest_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are judged by the most tokens a byte that was seen."""
    limited(monkeypatch, 200)
    monkeypatch.setattr(context, "MOST_BYTES", 500)
    asked: list[str] = []
    encode = POLICY.encode_prompt
    monkeypatch.setattr(POLICY, "encode_prompt", lambda text: (asked.append(text), encode(text))[1])
    task = fit(of_lengths(*[300] * 20, *[190] * 20, *[50] * 20), POLICY, 10)
    assert [len(p.text) for p in task.prompts] == [50] * 20
    assert len([text for text in asked if len(text) == 300]) <= 6


def test_a_chat_template_that_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> list[int]:
        raise ValueError("System role not supported\nat line 3")

    monkeypatch.setattr(POLICY, "encode_prompt", refuse)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    task = replace(of_lengths(3), prompts=[Prompt("a", "u", "", messages=messages)])
    with pytest.raises(UsageError, match=r"System role not supported\); it may know no system message: leave it out$"):
        fit(task, POLICY, 10)


def test_chat_messages_for_a_model_without_a_template_are_refused() -> None:
    task = replace(of_lengths(3), prompts=[Prompt("a", "u", "", messages=[{"role": "user", "content": "u"}])])
    with pytest.raises(UsageError, match="no chat template"):
        fit(task, POLICY, 10)
