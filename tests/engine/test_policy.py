"""Batches, log-probabilities, the ends of tokens, and what makes a model unusable."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.batches import make_batch
from engine.loading import load_policy
from engine.policy import Policy, end_tokens, make_accelerator
from engine.warmup import character_tokenizer
from sessions.errors import InputFileError, UsageError
from tests.engine.small import random_policy

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7, 8], [9], [10, 11]]
RESPONSES = [[20], [21, 22, 23], [24, 25]]


def test_prompts_are_padded_on_the_left_and_responses_on_the_right() -> None:
    batch = make_batch(PROMPTS, RESPONSES, [1.0, 0.5, 2.0], 0, CPU)
    assert batch.ids.tolist() == [[5, 6, 7, 8, 20, 0, 0], [0, 0, 0, 9, 21, 22, 23], [0, 0, 10, 11, 24, 25, 0]]
    assert batch.attention.tolist() == [[1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 0]]
    assert batch.targets.tolist() == [[20, 0, 0], [21, 22, 23], [24, 25, 0]]
    assert batch.mask.tolist() == [[True, False, False], [True, True, True], [True, True, False]]
    for positions, attention in zip(batch.positions.tolist(), batch.attention.tolist(), strict=True):
        assert [p for p, a in zip(positions, attention, strict=True) if a] == list(range(sum(attention)))
    assert batch.temperature.tolist() == [1.0, 0.5, 2.0]


def test_masks_come_from_lengths_where_padding_and_end_are_the_same_token() -> None:
    batch = make_batch([[5]], [[0, 0]], [1.0], 0, CPU)
    assert batch.mask.tolist() == [[True, True]]
    assert batch.attention.tolist() == [[1, 1, 1]]


def alone(policy: Policy, prompt: list[int], response: list[int], temperature: float = 1.0) -> list[float]:
    """Log-probabilities by the plain model on one unpadded row, in fp64."""
    with torch.no_grad():
        logits = policy.model(torch.tensor([prompt + response])).logits[0].double() / temperature
    return [
        float(logits[len(prompt) + t - 1].log_softmax(-1)[token]) for t, token in enumerate(response)
    ]  # fmt: skip


def scored(policy: Policy, rows: list[int], extra_pad: int = 0) -> dict[int, list[float]]:
    """Rows of PROMPTS and RESPONSES in one batch; with longer neighbours they are padded further."""
    prompts = [PROMPTS[i] for i in rows] + [[4] * (4 + extra_pad)] * bool(extra_pad)
    responses = [RESPONSES[i] for i in rows] + [[4] * (3 + extra_pad)] * bool(extra_pad)
    batch = make_batch(prompts, responses, [1.0] * len(prompts), policy.pad, CPU)
    with torch.no_grad():
        logprobs = policy.scorer(batch).logprobs
    return {i: logprobs[at, : len(RESPONSES[i])].tolist() for at, i in enumerate(rows)}


@pytest.mark.parametrize("which", ["small", "embedded"])
def test_log_probabilities_do_not_depend_on_batch_padding_or_order(which: str, request: pytest.FixtureRequest) -> None:
    policy = request.getfixturevalue(which)
    expected = {i: alone(policy, PROMPTS[i], RESPONSES[i]) for i in range(3)}
    for rows, pad in (([0, 1, 2], 0), ([2, 0, 1], 0), ([1], 0), ([0, 1, 2], 9), ([1, 2], 30)):
        for i, values in scored(policy, rows, pad).items():
            assert values == pytest.approx(expected[i], abs=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_and_entropy(small: Policy, temperature: float) -> None:
    batch = make_batch(PROMPTS, RESPONSES, [temperature, 1.0, 1.0], small.pad, CPU)
    logprobs, entropy = small.scorer(batch)[:2]
    assert logprobs[0, :1].tolist() == pytest.approx(alone(small, PROMPTS[0], RESPONSES[0], temperature), abs=1e-5)
    with torch.no_grad():
        logits = small.model(torch.tensor([PROMPTS[0]])).logits[0, -1].double() / temperature
    p = logits.softmax(-1)
    assert float(entropy[0, 0]) == pytest.approx(float(-(p * p.log()).sum()), abs=1e-5)
    assert logprobs.requires_grad
    assert not entropy.requires_grad


def test_later_tokens_do_not_reach_earlier_ones(small: Policy) -> None:
    logprobs = small.scorer(make_batch([[5, 6]], [[20, 21, 22]], [1.0], small.pad, CPU)).logprobs
    changed = small.scorer(make_batch([[5, 6]], [[20, 21, 40]], [1.0], small.pad, CPU)).logprobs
    torch.testing.assert_close(logprobs[0, :2], changed[0, :2])


def test_a_reference_is_frozen_and_does_not_follow(small: Policy) -> None:
    policy = random_policy(seed=1)
    batch = make_batch(PROMPTS, RESPONSES, [1.0] * 3, policy.pad, CPU)
    reference = policy.make_reference()
    before = reference(batch)[0]
    torch.testing.assert_close(before, policy.scorer(batch)[0].detach())
    for parameter in policy.parameters:
        parameter.data.add_(0.1)
    torch.testing.assert_close(reference(batch)[0], before)
    assert not any(p.requires_grad for p in reference.parameters())
    assert all(p.requires_grad for p in policy.parameters)
    other = policy.make_reference(dict(small.model.state_dict()))
    torch.testing.assert_close(other(batch)[0], small.scorer(batch)[0].detach())


# ------------------------------------------------------------------------------------------ ends of tokens


def bytes_policy() -> Policy:
    """A tokenizer whose tokens are single bytes: a character may be several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<eos>": 0} | {character: i + 1 for i, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    policy = random_policy()
    policy.tokenizer = fast
    return policy


@pytest.mark.parametrize("text", ["37+48=85", "é", "aéb", "€5 → 日本語", "ok 👍🏽 é", "👍👍", "naïve café\n", ""])
def test_ends_of_tokens_that_are_bytes(text: str) -> None:
    policy = bytes_policy()
    tokens = policy.encode_text(text)
    assert len(tokens) == len(text.encode())
    expected = []
    for done, character in enumerate(text):  # the last byte of a character is where it appears
        expected += [done] * (len(character.encode()) - 1) + [done + 1]
    assert policy.token_ends(tokens) == (text, expected)


def test_a_response_cut_inside_a_character() -> None:
    policy = bytes_policy()
    tokens = policy.encode_text("a€")[:-1]
    text, ends = policy.token_ends(tokens)
    assert text.startswith("a")
    assert ends == [1, 1, 1]


def test_special_tokens_have_no_width() -> None:
    policy = bytes_policy()
    tokens = [*policy.encode_text("é5"), 0]
    assert policy.token_ends(tokens) == ("é5", [0, 1, 2, 2])


def test_ends_of_characters(small: Policy) -> None:
    tokens = small.encode_prompt("37+48=")
    assert small.token_ends([*tokens, 2]) == ("37+48=", [1, 2, 3, 4, 5, 6, 6])
    assert small.token_ends([]) == ("", [])


# --------------------------------------------------------------------------------------------- end tokens


@pytest.mark.parametrize(
    ("configured", "tokenizer", "expected"),
    [(7, 2, {2, 7}), ([7, 8], None, {7, 8}), (None, 2, {2}), ([7, 2], 2, {2, 7}), (0, None, {0})],
)
def test_every_token_that_ends(configured: object, tokenizer: int | None, expected: set[int]) -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=configured))
    assert end_tokens(model, SimpleNamespace(eos_token_id=tokenizer)) == expected


def test_no_end_token_is_refused() -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
    with pytest.raises(UsageError, match="no end token"):
        end_tokens(model, SimpleNamespace(eos_token_id=None))


def test_no_trainable_parameters_is_refused() -> None:
    model = random_policy().model
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UsageError, match="no trainable parameters"):
        Policy(model, character_tokenizer(), make_accelerator("cpu", "fp32"))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"no config\.json there"):
        load_policy(tmp_path, make_accelerator("cpu", "fp32"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no CUDA device"):
        make_accelerator("cuda")


def test_dropout_is_off() -> None:
    model = random_policy().model
    model.model.layers[0].self_attn.attention_dropout = 0.5
    model.model.layers[0].mlp.extra = torch.nn.Dropout(0.5)
    policy = Policy(model, character_tokenizer(), make_accelerator("cpu", "fp32"))
    assert policy.scorer.training
    batch = make_batch(PROMPTS, RESPONSES, [1.0] * 3, policy.pad, CPU)
    assert torch.equal(policy.scorer(batch)[0], policy.scorer(batch)[0])
    assert model.model.layers[0].mlp.extra.p == 0


def test_a_chat_template_is_used_where_there_is_one() -> None:
    policy = random_policy()
    policy.tokenizer.chat_template = "{% for m in messages %}({{ m.content }}){% endfor %}"
    with_template = Policy(policy.model, policy.tokenizer, policy.accelerator)
    assert with_template.encode_prompt("1+1") == policy.encode_prompt("(1+1)")
    without = Policy(policy.model, policy.tokenizer, policy.accelerator, chat_template=False)
    assert without.encode_prompt("1+1") == policy.encode_prompt("1+1")


def test_a_shadow_computes_in_the_precision_of_training() -> None:
    policy = random_policy()
    policy.accelerator = SimpleNamespace(autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    batch = make_batch(PROMPTS, RESPONSES, [1.0] * 3, 0, CPU)
    with policy.inference():
        trained = policy.full_precision_scorer(batch).logprobs
    shadow = policy.shadow()
    with torch.no_grad():
        assert torch.equal(shadow.scorer(batch).logprobs, trained)
        assert not torch.equal(shadow.full_precision_scorer(batch).logprobs, trained)
