"""Supervised fine-tuning: what examples become, what the loss is, and that its cuts change nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from engine.loading import TINY, load_policy
from engine.policy import Policy, make_accelerator
from engine.supervised import FineTuning, Lesson, encode, encode_all, epochs_plan
from engine.tasks.arithmetic import arithmetic
from sessions.errors import InputFileError, SessionError
from sessions.examples import Example
from tests.engine.small import random_policy, same_weights, weights_of

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
EOS = 2


def chatty(template: str = TEMPLATE) -> Policy:
    policy = random_policy()
    policy.tokenizer.chat_template = template
    policy.uses_chat_template = True
    policy.end_tokens = frozenset({EOS})
    return policy


def words(policy: Policy, tokens: Sequence[int]) -> str:
    return str(policy.tokenizer.decode(list(tokens)))


def lessons(policy: Policy) -> list[Lesson]:
    """Prompts and completions of several lengths."""
    pairs = [("1+1=", "2"), ("12+3=", "15"), ("2=", "two hundred"), ("40+40=", "80"), ("what is 7+8?", "15, i think")]
    return encode_all(policy, [Example(i, *pair) for i, pair in enumerate(pairs, 1)], "f").rows


def train(policy: Policy, rows: Sequence[Lesson], *, count: int = 1, micro_tokens: int = 10_000, **more: Any):
    """Steps on all rows at once; the metrics of the last."""
    training = FineTuning(
        policy, rows, lambda _: range(len(rows)), count, **{"learning_rate": 1e-2, "rise": 1, **more},
        micro_tokens=micro_tokens,
    )  # fmt: skip
    return [training.step(number) for number in range(1, count + 1)][-1]


# ------------------------------------------------------------------------------------------------ encoding


def test_a_text_is_encoded_as_the_prompts_of_rl_are_and_closed_by_an_end_token(small: Policy) -> None:
    row = encode(small, Example(1, "37+48=", "85"), "f")
    assert row.prompt == small.encode_prompt("37+48=")
    assert words(small, row.tokens) == "85<eos>"


def test_a_text_becomes_the_message_of_the_user_where_there_is_a_template() -> None:
    policy = chatty()
    row = encode(policy, Example(1, "37+48=", "85"), "f")
    assert row.prompt == policy.encode_prompt("37+48=")
    assert words(policy, row.prompt) == "user: 37+48=\nassistant: "
    assert words(policy, row.tokens) == "85<eos>"


def test_a_conversation_is_written_by_the_template_and_ends_at_its_end_token() -> None:
    policy = chatty()
    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "37+48="}]
    row = encode(policy, Example(1, said, [{"role": "assistant", "content": "85"}]), "f")
    assert words(policy, row.prompt) == "system: be brief\nuser: 37+48=\nassistant: "
    assert words(policy, row.tokens) == "85<eos>"
    only = encode(policy, Example(1, said[1:], [{"role": "assistant", "content": "85"}]), "f")
    assert only == encode(policy, Example(1, "37+48=", "85"), "f")


def test_a_template_that_writes_the_prompt_another_way_afterwards_leaves_the_completion_as_it_is() -> None:
    policy = chatty("{{ messages | length }} said{% if add_generation_prompt %}: {% endif %}")
    said = [{"role": "user", "content": "37+48="}]
    row = encode(policy, Example(1, said, [{"role": "assistant", "content": "85"}]), "f")
    assert words(policy, row.prompt) == "1 said: "
    assert words(policy, row.tokens) == "85<eos>"


def test_a_conversation_without_a_template_is_refused(small: Policy) -> None:
    said = [{"role": "user", "content": "1+1="}]
    with pytest.raises(
        InputFileError, match=r"warm-up f\.jsonl, line 7: a conversation, and there is no chat template"
    ):
        encode(small, Example(7, said, [{"role": "assistant", "content": "2"}]), "f.jsonl")


def test_what_does_not_fit_or_is_held_out_is_counted(small: Policy) -> None:
    examples = [
        Example(1, "1+1=", "2"),
        Example(2, "1" * 100, "2" * 100),
        Example(3, "1" * 128, "2"),
        Example(4, "5+5=", "10"),
    ]
    found = encode_all(small, examples, "f", held_out=["5+5="])
    assert [(len(row.prompt), len(row.tokens)) for row in found.rows] == [(4, 2), (100, 28)]
    assert EOS not in found.rows[1].tokens
    assert (found.cut, found.left_out, found.held_out) == (1, 1, 1)
    for text in ("2 examples", "1 with held-out", "1 cut at", "1 with longer prompts"):
        assert text in found.describe()
    with pytest.raises(InputFileError, match="nothing is left to learn from"):
        encode_all(small, examples[3:], "f", held_out=["5+5="])


def test_a_held_out_question_is_known_whatever_its_system_message_says() -> None:
    policy, answer = chatty(), [{"role": "assistant", "content": "10"}]
    asked = {"role": "user", "content": "5+5="}
    system = [{"role": "system", "content": content} for content in ("be brief", "1+1=")]
    examples = [
        Example(1, [system[0], asked], answer),
        Example(2, [system[1], asked], answer),
        Example(3, "5+5= ", "10"),
        Example(4, [system[0], {"role": "user", "content": "1+1="}], answer),
    ]
    assert encode_all(policy, examples, "f", held_out=["5+5=", [system[0], asked]]).held_out == 3
    several = [asked, *answer, {"role": "user", "content": "1+1="}]
    alone = [Example(1, several, answer), Example(2, several[:1], answer)]
    assert encode_all(policy, alone, "f", held_out=["user: 5+5=", several]).held_out == 1


# ---------------------------------------------------------------------------------------------------- loss


def test_the_loss_is_the_mean_cross_entropy_of_the_completion_tokens() -> None:
    policy = random_policy()
    rows = lessons(policy)
    total, count = 0.0, 0
    for row in rows:  # one at a time: no padding, no mask
        ids = torch.tensor([row.prompt + row.tokens])
        with torch.no_grad():
            logits = policy.model(ids).logits[0, len(row.prompt) - 1 : -1]
        total += float(F.cross_entropy(logits, torch.tensor(row.tokens), reduction="sum"))
        count += len(row.tokens)
    assert all(row.tokens[-1] == EOS for row in rows)
    measured = train(policy, rows)
    assert measured["warmup/loss"] == pytest.approx(total / count, rel=1e-5)
    assert measured["tokens"] == sum(len(row.prompt) + len(row.tokens) for row in rows)


def test_the_gradient_is_that_of_the_brute_force_loss() -> None:
    policy, other = random_policy(), random_policy()
    rows = lessons(policy)
    logprobs = []
    for row in rows:
        logits = other.model(torch.tensor([row.prompt + row.tokens])).logits[0, len(row.prompt) - 1 : -1]
        logprobs.append(-F.cross_entropy(logits, torch.tensor(row.tokens), reduction="none"))
    (-torch.cat(logprobs).mean()).backward()
    norm = float(torch.nn.utils.clip_grad_norm_(other.parameters, 1.0))
    torch.optim.AdamW(other.parameters, lr=1e-2, weight_decay=0.0).step()
    assert train(policy, rows)["warmup/grad_norm"] == pytest.approx(norm, rel=1e-4)
    # Adam's first step is the sign of the gradient, which rounding may turn where that is about 0
    apart = [float((p - q).detach().abs().mean()) for p, q in zip(policy.parameters, other.parameters, strict=True)]
    assert max(apart) < 1e-5


@pytest.mark.parametrize("case", ["micro-batches", "order", "padding"])
def test_cuts_order_and_padding_change_nothing(case: str) -> None:
    one, other = random_policy(), random_policy()
    rows = lessons(one)
    expected = train(one, rows, count=3, learning_rate=1e-3)
    if case == "micro-batches":
        found = train(other, rows, count=3, learning_rate=1e-3, micro_tokens=30)
    elif case == "order":
        found = train(other, rows[::-1], count=3, learning_rate=1e-3)
    else:
        other.pad = 33
        found = train(other, rows, count=3, learning_rate=1e-3)
    assert found["warmup/loss"] == pytest.approx(expected["warmup/loss"], rel=1e-5)
    for p, q in zip(one.parameters, other.parameters, strict=True):
        assert float((p - q).detach().abs().max()) < 2e-5


def test_micro_batches_are_as_many_as_memory_asks_for() -> None:
    counts = []
    for micro_tokens in (10_000, 30, 1):
        calls: list[None] = []
        policy = random_policy()
        train(policy, lessons(policy), micro_tokens=micro_tokens, safe_point=lambda calls=calls: calls.append(None))
        counts.append(len(calls))
    assert counts[0] == 1 < counts[1] < counts[2] == 5


def test_the_learning_rate_rises_and_stays() -> None:
    policy = random_policy()
    rows = lessons(policy)
    training = FineTuning(
        policy, rows, lambda _: range(2), 4, learning_rate=1e-3, micro_tokens=1000, rise=2
    )  # fmt: skip
    rates = [training.step(n)["warmup/learning_rate"] for n in (1, 2, 3)]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3])


def test_a_loss_that_is_not_finite_changes_no_weight() -> None:
    policy = random_policy()
    with torch.no_grad():
        policy.parameters[0][EOS] = math.nan
    before = [torch.nan_to_num(w) for w in weights_of(policy)]
    with pytest.raises(SessionError, match=r"loss is not finite at step 1 of 1; .* lower --warm-up-learning-rate"):
        train(policy, lessons(policy))
    assert same_weights(before, [torch.nan_to_num(w) for w in weights_of(policy)])
    assert all(p.grad is None for p in policy.parameters)


def test_every_epoch_goes_through_all_examples_in_an_order_of_its_own() -> None:
    plan, steps = epochs_plan(10, 4, seed=3, epochs=2)
    assert steps == 6
    parts = [list(plan(step)) for step in range(1, 7)]
    assert [len(part) for part in parts] == [4, 4, 2, 4, 4, 2]
    first, second = [i for part in parts[:3] for i in part], [i for part in parts[3:] for i in part]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [list(epochs_plan(10, 4, seed=3, epochs=1)[0](s)) for s in (1, 2, 3)] == parts[:3]
    assert list(epochs_plan(10, 4, seed=4, epochs=1)[0](1)) != parts[0]


def test_sums_teach_the_embedded_model_sums_it_has_not_seen() -> None:
    policy = load_policy(TINY, make_accelerator("cpu", "fp32"))
    task = arithmetic()
    held = encode_all(policy, [Example(1, p.text, p.answer) for p in task.evaluation], "held").rows
    examples = [Example(1, p.text, p.answer) for p in task.prompts[:2560]]
    rows = encode_all(policy, examples, "f", (p.text for p in task.evaluation)).rows
    before = held_out_loss(policy, held)
    plan, steps = epochs_plan(len(rows), 128, 0, 1)
    training = FineTuning(policy, rows, plan, steps, learning_rate=3e-4, micro_tokens=16_384, rise=2)
    for number in range(1, steps + 1):
        training.step(number)
    after = held_out_loss(policy, held)
    assert after < 0.9 * before


def held_out_loss(policy: Policy, rows: Sequence[Lesson]) -> float:
    """Nats a completion token, by one row-padded forward of the model."""
    width = max(len(r.prompt) + len(r.tokens) for r in rows)
    ids, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.prompt) + len(row.tokens)] = torch.tensor(row.prompt + row.tokens)
        labels[i, len(row.prompt) : len(row.prompt) + len(row.tokens)] = torch.tensor(row.tokens)
    with torch.no_grad():
        logits = policy.model(ids).logits[:, :-1]
    return float(F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100))
