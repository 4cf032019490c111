"""The recipe of the embedded model, at a size that takes a second."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.loading import load_policy
from engine.policy import make_accelerator
from engine.tasks.arithmetic import arithmetic
from engine.warmup import CHARACTERS, character_tokenizer, save, warm_up


def test_every_character_is_a_token_and_comes_back() -> None:
    tokenizer = character_tokenizer()
    assert len(tokenizer) == 64
    ids = tokenizer(CHARACTERS)["input_ids"]
    assert len(ids) == len(set(ids)) == len(CHARACTERS)
    assert tokenizer.decode(ids) == CHARACTERS
    assert tokenizer.eos_token_id not in ids


def teacher_forced(model, tokenizer, prompts) -> float:
    """Share of answer tokens, the end token included, that are the likeliest given what comes before."""
    right = count = 0
    for prompt in prompts:
        question, answer = (tokenizer(t)["input_ids"] for t in (prompt.text, prompt.answer))
        answer = [*answer, tokenizer.eos_token_id]
        with torch.no_grad():
            guess = model(torch.tensor([question + answer])).logits[0, len(question) - 1 : -1].argmax(-1)
        right += int((guess == torch.tensor(answer)).sum())
        count += len(answer)
    return right / count


def test_a_small_budget_learns_something(tmp_path: Path) -> None:
    losses: list[float] = []
    prompts = arithmetic().evaluation[:100]
    fresh = warm_up(0, hidden=32, layers=2)
    before = teacher_forced(fresh.model, fresh.tokenizer, prompts)
    warmed = warm_up(
        150, hidden=32, layers=2, evaluate_every=50, report=lambda step, loss, accuracy: losses.append(loss)
    )  # fmt: skip
    after = teacher_forced(warmed.model, warmed.tokenizer, prompts)
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert after > before + 0.2
    assert [step for step, _ in warmed.accuracy] == [50, 100, 150]
    save(warmed, tmp_path / "model")
    policy = load_policy(tmp_path / "model", make_accelerator("cpu", "fp32"))
    assert policy.model.dtype == torch.float32
    assert teacher_forced(policy.model, policy.tokenizer, prompts) == pytest.approx(after, abs=0.03)


def test_the_recipe_is_seeded() -> None:
    one, same, other = (warm_up(3, seed, hidden=16, layers=1, evaluate_every=99).model for seed in (0, 0, 1))
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
