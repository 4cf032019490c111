"""Decoding in buffers that stay: the tokens of growing caches, addresses that do not move, steps recorded once.

Everything but the recording itself runs on a CPU as it does on CUDA.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Collection, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from engine import sampling, static_decoding
from engine.decoding import Decoder, Prefill, prefill
from engine.policy import Policy
from engine.sampling import Samples, sample
from engine.static_decoding import Recorder, StaticDecoder, bucket, can_record
from sessions.shortcuts import SHORTCUTS
from tests.engine.small import random_policy
from tests.engine.test_decoding import random_model
from tests.engine.test_sampling import LENGTH, PROMPTS, G, noise_for


class Tape:
    """Records a step by keeping it, after doing it as often as a warm-up would."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        work()
        work()

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    static_decoding._kept.clear()
    static_decoding._given_up.clear()


@pytest.fixture
def statically(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Samples]:
    def run(record: Recorder | None, policy: Policy, *given: Any, **more: Any) -> Samples:
        def opened(policy: Policy, read: Prefill, room: int, _: Collection[str]) -> Decoder:
            return StaticDecoder(policy, read, room, record)

        with monkeypatch.context() as patch:
            patch.setattr(sampling, "open_decoder", opened)
            return sample(policy, *given, **more)

    return run


def same(one: Samples, other: Samples, within: float = 1e-4) -> None:
    assert one.tokens == other.tokens
    assert one.ended == other.ended
    for a, b in zip(one.logprobs, other.logprobs, strict=True):
        assert a == pytest.approx(b, abs=within)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("recorded", [False, True])
def test_the_same_tokens_as_with_growing_caches(statically: Any, recorded: bool, seed: int) -> None:
    policy = random_policy(seed, hidden=32, layers=2, spread=10.0)
    noise = noise_for(len(PROMPTS) * G, 80, seed)
    growing = sample(policy, PROMPTS, G, 80, 0.9, noise)
    assert len({len(tokens) for tokens in growing.tokens}) > 3
    same(statically(Tape() if recorded else None, policy, PROMPTS, G, 80, 0.9, noise), growing)


@pytest.mark.parametrize("kind", ["qwen3", "gpt_neox", "eager"])
def test_shared_heads_other_positions_and_eager_attention(statically: Any, kind: str) -> None:
    policy = random_model("llama", attn_implementation="eager") if kind == "eager" else random_model(kind)
    noise = noise_for(len(PROMPTS) * G)
    growing = sample(policy, PROMPTS, G, LENGTH, 1.0, noise)
    same(statically(Tape(), policy, PROMPTS, G, LENGTH, 1.0, noise), growing)


@pytest.mark.parametrize("off", ["shared_prefill", "compaction"])
def test_with_another_shortcut_turned_off(statically: Any, small: Policy, off: str) -> None:
    noise, shortcuts = noise_for(len(PROMPTS) * G), set(SHORTCUTS) - {off}
    growing = sample(small, PROMPTS, G, LENGTH, 1.0, noise)
    same(statically(None, small, PROMPTS, G, LENGTH, 1.0, noise, shortcuts=shortcuts), growing)


def test_long_responses_go_through_every_bucket_of_length(statically: Any) -> None:
    policy = random_model("llama", max_position_embeddings=400)
    policy.end_tokens = frozenset({63})
    noise = noise_for(2, 200, 1) * 0.9
    growing = sample(policy, [[5, 6, 7], [8]], 1, 200, 1.0, noise)
    assert max(map(len, growing.tokens)) > 130
    tape = Tape()
    same(statically(tape, policy, [[5, 6, 7], [8]], 1, 200, 1.0, noise), growing)
    lengths = {length for _, length, _ in static_decoding._kept[policy.model].steps}
    assert lengths >= {64, 96, 128, 192}


def test_a_step_is_recorded_once_and_nothing_moves(statically: Any, small: Policy) -> None:
    tape = Tape()
    statically(tape, small, PROMPTS, G, LENGTH, 1.0, noise_for(12))
    kept = static_decoding._kept[small.model]
    places = [t.data_ptr() for t in (kept.token, kept.position, kept.slot, kept.mask, kept.logits)]
    first = tape.recorded
    assert first == len(kept.steps) > 1  # rows ended, so there are smaller buckets
    for seed in range(3):
        samples = statically(tape, small, PROMPTS[:2], G, LENGTH - 1, 1.0, noise_for(8, LENGTH - 1, seed))
        same(samples, sample(small, PROMPTS[:2], G, LENGTH - 1, 1.0, noise_for(8, LENGTH - 1, seed)))
    assert static_decoding._kept[small.model] is kept
    assert places == [t.data_ptr() for t in (kept.token, kept.position, kept.slot, kept.mask, kept.logits)]
    assert tape.recorded == len(kept.steps)
    before = tape.recorded
    statically(tape, small, PROMPTS, G, LENGTH, 1.0, noise_for(12))
    assert tape.recorded == before
    assert tape.replayed > before


def test_buffers_are_made_anew_for_more_and_where_weights_have_moved(statically: Any) -> None:
    policy = random_policy()
    few, many = ((policy, PROMPTS, n, LENGTH, 1.0, noise_for(3 * n)) for n in (2, 8))
    statically(Tape(), *few)
    first = static_decoding._kept[policy.model]
    same(statically(Tape(), *many), sample(*many))
    second = static_decoding._kept[policy.model]
    assert (first.rows, second.rows) == (6, 24)
    same(statically(Tape(), *few), sample(*few))
    assert static_decoding._kept[policy.model] is second
    for parameter in policy.model.parameters():
        parameter.data = parameter.data.clone() * 0.9
    same(statically(Tape(), *few), sample(*few))
    assert static_decoding._kept[policy.model] is not second
    assert static_decoding._kept[policy.model].steps
    static_decoding.release(policy.model)
    assert policy.model not in static_decoding._kept


def test_weights_that_change_in_place_are_read(statically: Any) -> None:
    policy, tape = random_policy(), Tape()
    given = (policy, PROMPTS, G, LENGTH, 1.0, noise_for(12))
    before = statically(tape, *given)
    recorded = tape.recorded
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(0.9)
    after = statically(tape, *given)
    assert after.logprobs != before.logprobs
    same(after, sample(*given))
    assert tape.recorded >= recorded
    assert len(static_decoding._kept[policy.model].steps) == tape.recorded


def test_where_a_step_cannot_be_recorded_the_log_says_so_once_and_sampling_goes_on(
    statically: Any, small: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    noise = noise_for(12)
    cache = DynamicCache(config=small.model.config)
    assert can_record(small.model, cache)
    with caplog.at_level(logging.WARNING):
        samples = statically(refuse, small, PROMPTS, G, LENGTH, 1.0, noise)
    same(samples, sample(small, PROMPTS, G, LENGTH, 1.0, noise))
    assert [r.getMessage() for r in caplog.records] == [
        "sampling launches every operation by itself: no decode step of this model is recorded "
        "(operation not permitted when stream is capturing)"
    ]
    assert not can_record(small.model, cache)


def test_models_with_windows_are_not_recorded(caplog: pytest.LogCaptureFixture) -> None:
    model = random_model("mistral").model
    with caplog.at_level(logging.WARNING):
        assert not can_record(model, DynamicCache(config=model.config))
        assert not can_record(model, DynamicCache(config=model.config))
    assert len(caplog.records) == 1


def test_steps_are_recorded_on_cuda_only(small: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "StaticDecoder", lambda *given: ("static", given[-1]))
    monkeypatch.setattr(sampling, "GrowingDecoder", lambda *given: "growing")
    with small.inference():
        read = prefill(small, PROMPTS, G)

    def choice(device: str, shortcuts: Collection[str] = SHORTCUTS) -> Any:
        policy: Any = SimpleNamespace(model=small.model, device=SimpleNamespace(type=device))
        return sampling.open_decoder(policy, read, 1, shortcuts)

    assert choice("cuda") == ("static", static_decoding.record_graph)
    assert choice("cuda", set(SHORTCUTS) - {"decode_graph"}) == "growing"
    assert choice("cpu") == "growing"
    static_decoding._given_up.add(small.model)
    assert choice("cuda") == "growing"


def test_under_autocast_the_caches_are_in_bf16(statically: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = copy.copy(random_policy(spread=8.0))
    policy.bf16 = True

    @contextlib.contextmanager
    def inference() -> Iterator[None]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            yield

    monkeypatch.setattr(policy, "inference", inference)
    noise = noise_for(12, 4)
    growing = sample(policy, PROMPTS, G, 4, 1.0, noise)
    static = statically(Tape(), policy, PROMPTS, G, 4, 1.0, noise)
    assert {t.dtype for pair in static_decoding._kept[policy.model].states for t in pair} == {torch.bfloat16}
    assert sum(a == b for a, b in zip(static.tokens, growing.tokens, strict=True)) >= 10
    for a, b, tokens, others in zip(static.logprobs, growing.logprobs, static.tokens, growing.tokens, strict=True):
        if tokens == others:
            assert a == pytest.approx(b, abs=0.1)


@pytest.mark.parametrize(
    ("least", "sizes"),
    [(1, [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]), (64, [64, 96, 128, 192, 256, 384, 512])],
)
def test_buckets(least: int, sizes: list[int]) -> None:
    assert sorted({bucket(n, least) for n in range(1, sizes[-1] + 1)}) == sizes
    for n in range(1, sizes[-1] + 1):
        assert bucket(n, least) == min(size for size in sizes if size >= n)
