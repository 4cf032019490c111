"""Memory that runs out: micro-batches halve, and the step is the one that would have been made."""

from pathlib import Path

import pytest
import torch

from engine.learner import Learner
from engine.passes import Budget, micro_batches
from tests.engine.small import make_learner

REWARD = {"kl_placement": "reward", "kl_estimator": "k1"}
CASES = {
    "grpo": {"kl_coefficient": 0.04},
    "grpo, several steps": {"kl_coefficient": 0.04, "epochs": 2, "minibatches": 2},
    "ppo": {"algorithm": "ppo", **REWARD, "value_warmup_steps": 0},
    "trpo": {"algorithm": "trpo", **REWARD},
}


def limit(learner: Learner, tokens: int) -> list[str]:
    """Let a forward pass of any scorer, or its backward pass, fail over so many tokens; what people are told."""
    told: list[str] = []
    learner.training.budget.on_halved = told.append
    over = [0]

    def check(_, inputs, named) -> None:
        ids = named["input_ids"]
        if ids.numel() > tokens:
            over[0] += 1
            if over[0] % 2:  # half of them on the way back
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def later(_, inputs, named, output) -> None:
        state = output.last_hidden_state
        if named["input_ids"].numel() > tokens and state.requires_grad:
            state.register_hook(fail)

    def fail(gradient: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    decoder = learner.policy.model.get_decoder()
    decoder.register_forward_pre_hook(check, with_kwargs=True)
    decoder.register_forward_hook(later, with_kwargs=True)
    return told


@pytest.mark.parametrize("case", CASES)
def test_a_step_that_runs_out_of_memory_is_made_in_smaller_parts_with_the_same_result(
    tmp_path: Path, case: str
) -> None:
    roomy, tight = (make_learner(tmp_path / name, **CASES[case]) for name in ("roomy", "tight"))
    groups = roomy.sample(1), tight.sample(1)
    told = limit(tight, 40)
    found = []
    for learner, rollout in zip((roomy, tight), groups, strict=True):
        learner.measure_reference(1, rollout)
        learner.advantages(rollout, {})
        found.append(learner.update(1, rollout, lambda: None))
    assert told
    assert "at most" in told[0]
    assert tight.training.budget.tokens <= 64
    for a, b in zip(roomy.policy.parameters, tight.policy.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)
    for name in ("entropy", "loss/policy", "grad/norm", "sampler_gap/max"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-3, abs=1e-5), name


def test_other_errors_and_a_budget_that_cannot_shrink_are_not_tried_again() -> None:
    tries = []

    def fails(error: Exception):
        def work() -> None:
            tries.append(error)
            raise error

        return work

    budget = Budget(64)
    budget.on_halved = lambda text: None
    with pytest.raises(ValueError):
        budget.retry(fails(ValueError("no")), lambda: None)
    assert len(tries) == 1
    with pytest.raises(torch.OutOfMemoryError):
        budget.retry(fails(torch.OutOfMemoryError("CUDA out of memory.")), lambda: None)
    assert budget.tokens == Budget.LEAST
    assert len(tries) == 4


def test_several_processes_do_not_try_again_one_by_one() -> None:
    budget = Budget(64, shared=True)
    with pytest.raises(torch.OutOfMemoryError):
        budget.retry(lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.")), lambda: None)
    assert budget.tokens == 64


def test_what_is_done_is_not_done_again_when_a_later_micro_batch_does_not_fit(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    rows = [row for group in learner.sample(1) for row in group.rows()]
    budget = Budget(60)
    budget.on_halved = lambda text: None
    assert len(list(micro_batches(learner.policy, rows, 60))) > 1
    done: list[str] = []

    def work(part) -> None:
        if done and budget.tokens == 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")
        done.extend(row.name for row in part)

    budget.each(learner.policy, rows, work)
    assert sorted(done) == sorted(row.name for row in rows)
    assert budget.tokens == 30
