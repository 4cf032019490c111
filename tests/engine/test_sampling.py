"""Sampling against a slow loop that shares nothing with it: no cache, one row at a time, no compaction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.control import Discarded
from engine.policy import Policy
from engine.randomness import stream
from engine.sampling import Growth, Samples, entropy, pick, sample, tempered
from sessions.shortcuts import active

PROMPTS = [[5, 6, 7, 8, 9], [10], [11, 12, 13]]
G, LENGTH = 4, 10


def noise_for(rows: int, length: int = LENGTH, seed: int = 0) -> np.ndarray:
    return stream("test noise", seed).random((rows, length))


def slowly(policy: Policy, prompt: list[int], noise: np.ndarray | None, temperature: float, length: int):
    """One response: the whole text through the model for each token, the inverse CDF by a plain loop."""
    tokens: list[int] = []
    logprobs: list[float] = []
    for i in range(length):
        with torch.no_grad():
            logits = policy.model(torch.tensor([prompt + tokens])).logits[0, -1]
        p = (logits.double() / temperature).softmax(-1).tolist()
        if noise is None:
            token = max(range(len(p)), key=p.__getitem__)
        else:
            token, total = 0, p[0]
            while total <= noise[i]:
                token += 1
                total += p[token]
        tokens.append(token)
        logprobs.append(float(np.log(p[token])))
        if token in policy.end_tokens:
            return tokens, logprobs, True
    return tokens, logprobs, False


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("which", ["small", "embedded"])
def test_the_same_tokens_as_the_slow_loop(which: str, temperature: float, request: pytest.FixtureRequest) -> None:
    policy = request.getfixturevalue(which)
    prompts = PROMPTS if which == "small" else [policy.encode_prompt(t) for t in ("37+48=", "1+2=", "90+9=")]
    noise = noise_for(len(prompts) * G)
    samples = sample(policy, prompts, G, LENGTH, temperature, noise)
    lengths = set()
    for row in range(len(prompts) * G):
        tokens, logprobs, ended = slowly(policy, prompts[row // G], noise[row], temperature, LENGTH)
        assert samples.tokens[row] == tokens
        assert samples.logprobs[row] == pytest.approx(logprobs, abs=1e-5)
        assert samples.ended[row] == ended
        lengths.add(len(tokens))
    assert len(lengths) > 1  # otherwise nothing was compacted


def test_greedy_is_the_likeliest_token_each_time(embedded: Policy) -> None:
    prompts = [embedded.encode_prompt(t) for t in ("37+48=", "1+2=", "90+9=", "0+0=")]
    samples = sample(embedded, prompts, 1, 6, 1.0, None)
    for row, prompt in enumerate(prompts):
        tokens, logprobs, ended = slowly(embedded, prompt, None, 1.0, 6)
        assert (samples.tokens[row], samples.ended[row]) == (tokens, ended)
        assert samples.logprobs[row] == pytest.approx(logprobs, abs=1e-5)


def test_a_response_does_not_depend_on_what_is_beside_it(small: Policy) -> None:
    noise = noise_for(len(PROMPTS) * G)
    whole = sample(small, PROMPTS, G, LENGTH, 1.0, noise)
    for i, prompt in enumerate(PROMPTS):
        part = sample(small, [prompt], G, LENGTH, 1.0, noise[i * G : (i + 1) * G])
        assert part.tokens == whole.tokens[i * G : (i + 1) * G]
        alone = sample(small, [prompt], 1, LENGTH, 1.0, noise[i * G : i * G + 1])
        assert alone.tokens == whole.tokens[i * G : i * G + 1]


def test_responses_end_at_their_first_end_token(small: Policy) -> None:
    samples = sample(small, PROMPTS, 8, LENGTH, 1.0, noise_for(len(PROMPTS) * 8))
    assert any(samples.ended)
    for tokens, logprobs, ended in zip(samples.tokens, samples.logprobs, samples.ended, strict=True):
        assert len(tokens) == len(logprobs)
        assert not set(tokens[:-1]) & small.end_tokens
        assert (tokens[-1] in small.end_tokens) == ended
        assert ended or len(tokens) == LENGTH


def test_a_prompt_is_told_once_when_its_last_response_is_finished(small: Policy) -> None:
    """Against the lengths: group i is told at the decode step of its longest response, or at the end."""
    at, told = [0], {}

    def tell(prompt: int, tokens: list[list[int]]) -> None:
        assert prompt not in told
        told[prompt] = (at[0], tokens)

    def count(done: int, total: int) -> None:
        at[0] += 1

    samples = sample(small, PROMPTS, 2, 4, 1.0, noise_for(6, 4, seed=3), safe_point=count, on_finished=tell)
    early, cut = 0, 0
    for i in range(len(PROMPTS)):
        rows = range(2 * i, 2 * i + 2)
        step, tokens = told[i]
        assert tokens == [samples.tokens[r] for r in rows]
        if all(samples.ended[r] for r in rows):
            assert step == max(len(samples.tokens[r]) for r in rows) - 1  # the safe points before that one
            early += step + 1 < at[0]
        else:
            assert step == at[0]
            cut += 1
    assert early
    assert cut


def test_growth_is_what_was_sampled_so_far(small: Policy) -> None:
    seen: list[Growth] = []
    steps: list[list[list[int]]] = []
    progress: list[tuple[int, int]] = []

    def safe_point(done: int, total: int) -> None:
        progress.append((done, total))
        steps.append([seen[0].row(i) for i in range(len(PROMPTS) * G)])

    noise = noise_for(len(PROMPTS) * G)
    samples = sample(small, PROMPTS, G, LENGTH, 1.0, noise, safe_point=safe_point, on_start=seen.append)
    assert len(seen) == 1
    assert seen[0].group_size == G
    assert len(progress) == max(map(len, samples.tokens))  # a safe point after each token
    for i, rows in enumerate(steps, 1):
        assert rows == [tokens[:i] for tokens in samples.tokens]
        assert progress[i - 1] == (
            sum(len(t) <= i and e for t, e in zip(samples.tokens, samples.ended, strict=True)),
            len(PROMPTS) * G,
        )
    assert seen[0].ended.tolist() == samples.ended


def test_a_safe_point_may_end_it(small: Policy) -> None:
    def drop(done: int, total: int) -> None:
        raise Discarded

    with pytest.raises(Discarded):
        sample(small, PROMPTS, G, LENGTH, 1.0, noise_for(12), safe_point=drop)
    assert torch.is_grad_enabled()


class Counting:
    """The model, telling how many rows and tokens each forward had."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.config, self.dtype, self.modules = model.config, model.dtype, model.modules
        self.forwards: list[tuple[int, int]] = []

    def __call__(self, **arguments: Any) -> Any:
        self.forwards.append(tuple(arguments["input_ids"].shape))
        return self._model(**arguments)


def test_a_prompt_is_read_once_for_its_group_and_finished_rows_leave(
    small: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(small.model)
    monkeypatch.setattr(small, "model", counting)
    samples = sample(small, PROMPTS, 8, LENGTH, 1.0, noise_for(24))
    assert counting.forwards[0] == (3, 5)
    assert all(shape[1] == 1 for shape in counting.forwards[1:])
    longest = max(map(len, samples.tokens))
    assert len(counting.forwards) == longest  # none after the last row has ended
    sizes = [shape[0] for shape in counting.forwards[1:]]
    assert sizes == sorted(sizes, reverse=True)
    for i, size in enumerate(sizes, 1):
        alive = sum(len(t) > i for t in samples.tokens)
        assert alive <= size
        assert alive > 0.75 * size or i == 0 or size == 24


def test_one_token_only(small: Policy) -> None:
    samples = sample(small, PROMPTS, 2, 1, 1.0, noise_for(6, 1))
    assert all(len(t) == 1 for t in samples.tokens)


def test_samples_start_empty() -> None:
    assert Samples().tokens == []


# --------------------------------------------------------------------------------------------------- pick


def test_pick_is_the_inverse_of_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0, -3.0])
    p = logits.double().softmax(-1).tolist()
    edges = np.cumsum(p)
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    tokens, logprobs = pick(tempered(logits.expand(len(uniform), -1), 1.0), uniform)
    expected = [int(np.searchsorted(edges, u)) for u in uniform.tolist()]
    assert sum(a != b for a, b in zip(tokens.tolist(), expected, strict=True)) <= 4  # at the very edges
    shares = np.bincount(tokens.numpy(), minlength=5) / len(uniform)
    assert shares == pytest.approx(p, abs=1e-3)
    assert logprobs[0].item() == pytest.approx(np.log(p[tokens[0]]), abs=1e-6)


def test_a_token_of_probability_zero_is_never_picked() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    uniform = torch.tensor([0.0, 1e-12, 0.4999, 0.5, 0.5001, 1 - 1e-16, 0.9999999999999999], dtype=torch.float64)
    tokens, logprobs = pick(tempered(logits.expand(len(uniform), -1), 1.0), uniform)
    assert set(tokens.tolist()) == {1, 3}
    assert bool(logprobs.isfinite().all())


def test_rare_tokens_of_a_large_vocabulary_are_not_lost() -> None:
    logits = torch.zeros(1, 200_000)
    uniform = torch.tensor([0.25, 0.75, 1 - 1e-9], dtype=torch.float64)
    tokens, _ = pick(tempered(logits.expand(3, -1), 1.0), uniform)
    assert tokens.tolist() == pytest.approx([50_000, 150_000, 199_999], abs=2)


def test_pick_greedy_and_tempered() -> None:
    logits = torch.tensor([[0.1, 3.0, 1.0]])
    token, logprob = pick(tempered(logits, 0.5), None)
    assert token.tolist() == [1]
    assert logprob.item() == pytest.approx(float((logits.double() / 0.5).log_softmax(-1)[0, 1]), abs=1e-6)


# -------------------------------------------------------------------------------------------- shortcuts


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("off", ["shared_prefill", "compaction", "decode_weights", "decode_graph", "all"])
def test_without_a_shortcut_the_same_tokens(small: Policy, off: str, seed: int) -> None:
    noise = noise_for(len(PROMPTS) * G, LENGTH, seed)
    fast = sample(small, PROMPTS, G, LENGTH, 0.8, noise)
    plain = sample(small, PROMPTS, G, LENGTH, 0.8, noise, shortcuts=active([off]))
    assert len({len(tokens) for tokens in fast.tokens}) > 2  # rows that end at different times
    assert plain.tokens == fast.tokens
    assert plain.ended == fast.ended
    for one, other in zip(plain.logprobs, fast.logprobs, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("off", ["shared_prefill", "compaction"])
def test_a_switch_turns_its_shortcut_off(small: Policy, off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(small.model)
    monkeypatch.setattr(small, "model", counting)
    sample(small, PROMPTS, 8, LENGTH, 1.0, noise_for(24), shortcuts=active([off]))
    shapes = counting.forwards
    assert (shapes[0] == (24, 5)) == (off == "shared_prefill")
    assert ({shape[0] for shape in shapes[1:]} == {24}) == (off == "compaction")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_samplers_entropy_is_that_of_the_policys_distribution_in_fp32(precision: str) -> None:
    logits = torch.linspace(-3, 9, 64).sin().mul(4).expand(2, -1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        found = entropy(tempered(logits, 0.7))
    p = (logits.double() / 0.7).softmax(-1)
    torch.testing.assert_close(found, -(p * p.log()).sum(-1).float())
