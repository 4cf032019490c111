"""Counts of a step's work, against the rollouts and updates themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import work
from engine.knobs import Knobs
from engine.work import FORWARD, TRAINED, Learning, Rollout, Search
from sessions.hyperparameters import defaults, switched
from sessions.shortcuts import active
from tests.engine.small import make_learner

ALL, PLAIN = active([]), active(["all"])
ROLLOUT = Rollout(groups=8, group_size=4, prompt=10, width=12, response=20, longest=30, dead=0.25)
TOKENS = 8 * 10 + 8 * 4 * 20


def learning(rollout: Rollout = ROLLOUT, micro: int = 10**6, plain: bool = False, **values: Any) -> Learning:
    search = values.pop("search", None)
    value_only = values.pop("value_only", False)
    compares = values.pop("compares", 0.0)
    before = defaults()
    knobs = Knobs({**before, **switched(before, {"kl_coefficient": 0.0, **values})})
    return work.learning(
        rollout, knobs, micro, PLAIN if plain else ALL, compares=compares, value_only=value_only, search=search
    )  # fmt: skip


def test_a_tree_has_a_prompt_once_a_group_and_a_padded_row_as_much_as_the_longest() -> None:
    assert ROLLOUT.tokens(tree=True) == TOKENS
    assert ROLLOUT.tokens(tree=False) == 32 * (12 + 30)


def test_grpo_trains_what_teaches_and_the_reference_has_its_pass() -> None:
    assert learning().passes == {"update": TRAINED * TOKENS * 0.75}
    assert learning(kl_coefficient=0.04).passes == {"reference": TOKENS, "update": TRAINED * TOKENS}
    assert learning(entropy_bonus=0.01).passes == {"update": TRAINED * TOKENS}
    assert learning(plain=True).passes == {"update": TRAINED * 32 * 42}
    full = learning(kl_coefficient=0.04, kl_estimator="full", epochs=2).passes
    assert full == {"reference": TOKENS, "update": 2 * (TRAINED + FORWARD) * TOKENS}


def test_epochs_and_minibatches_are_optimizer_steps_and_an_old_pass_where_the_sampler_does_not_do() -> None:
    assert (learning().steps, learning(epochs=3).steps, learning(epochs=3, minibatches=4).steps) == (1, 3, 12)
    assert learning(minibatches=20).steps == 8  # no more than there are groups
    assert "old" not in learning(epochs=2).passes
    assert learning(epochs=2, plain=True).passes["old"] == 32 * 42
    assert "old" not in learning(plain=True).passes  # one optimizer step: its own forward pass is the old one


def test_a_measured_divergence_is_three_passes_in_the_steps_that_have_it() -> None:
    assert learning(compares=1.0).passes["reference"] == 3 * TOKENS
    assert learning(compares=0.1).passes["reference"] == pytest.approx(0.3 * TOKENS)
    assert learning(compares=1.0, kl_coefficient=0.1).passes["reference"] == 3 * TOKENS  # one of them anyway


def test_a_value_model_of_its_own_is_another_model_to_pass() -> None:
    head, separate = (learning(algorithm="ppo", value_model=kind, epochs=2) for kind in ("head", "separate"))
    assert head.passes == {"old": TOKENS, "update": 2 * TRAINED * TOKENS}
    assert separate.passes == {"old": 2 * TOKENS, "update": 2 * 2 * TRAINED * TOKENS}
    warming = learning(algorithm="ppo", epochs=2, value_only=True).passes
    assert warming["value model"] == 2 * FORWARD * TOKENS
    assert "update" not in warming


def test_trpo_has_its_products_and_as_many_tries_as_were_seen() -> None:
    seen = learning(algorithm="trpo", search=Search(4, 3.0)).passes
    assert seen["line search"] == 3 * TOKENS
    assert seen["gradient"] == TRAINED * TOKENS
    assert seen["Fisher products"] == (5 * work.PRODUCT + work.GRAPH) * TOKENS
    fewer = learning(algorithm="trpo", search=Search(4, 3.0), cg_iterations=2, fisher_fraction=0.25).passes
    assert fewer["Fisher products"] == (3 * work.PRODUCT + work.GRAPH) * TOKENS / 4
    again = learning(algorithm="trpo", search=Search(4, 3.0), micro=500).passes  # the graph of a part cannot be kept
    assert again["Fisher products"] == 5 * (work.PRODUCT + work.GRAPH) * TOKENS
    assert learning(algorithm="trpo").steps == 0


def test_calls_count_micro_batches() -> None:
    assert learning(kl_coefficient=0.04).calls == FORWARD + TRAINED
    assert learning(kl_coefficient=0.04, micro=TOKENS // 3).calls == 3 * (FORWARD + TRAINED)
    assert learning(kl_coefficient=0.04, minibatches=4, micro=TOKENS // 3).calls == 3 * FORWARD + 4 * TRAINED


def test_the_counts_of_a_real_update(tmp_path: Path) -> None:
    """Tokens that the model was given while training, against the count."""
    learner = make_learner(tmp_path, kl_coefficient=0.1, epochs=2, minibatches=2, reference_every=0)
    given: list[int] = []
    groups = learner.sample(1)
    learner.measure_reference(1, groups)
    learner.advantages(groups, {})

    def note(module: torch.nn.Module, _: Any, kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            given.append(int((kwargs["position_ids"] >= 0).sum()))

    learner.policy.model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    metrics = learner.update(1, groups, lambda: None)
    records = [g.record for g in groups]
    prompts = [len(g.prompt_tokens) for g in records]
    lengths = [r.length for g in records for r in g.responses]
    rollout = Rollout(4, 4, sum(prompts) / 4, max(prompts), sum(lengths) / 16, max(lengths))
    counted = work.learning(rollout, learner.knobs, 16_384, learner.policy.shortcuts, compares=0.0)
    assert counted.steps == metrics["update/optimizer_steps"] == 4
    # less where responses begin alike, more where groups are packed side by side with room left over
    assert sum(given) == pytest.approx(counted.passes["update"] / TRAINED, rel=0.2)


KNOBS = st.fixed_dictionaries(
    {
        "algorithm": st.sampled_from(["grpo", "ppo", "trpo"]),
        "epochs": st.integers(1, 4),
        "minibatches": st.integers(1, 4),
        "value_model": st.sampled_from(["head", "separate"]),
    }
)


@given(KNOBS, st.integers(1, 40), st.integers(2, 16), st.integers(1, 60), st.integers(100, 5000), st.booleans())
def test_more_responses_tokens_or_epochs_are_never_less_work(
    values: dict[str, Any], groups: int, size: int, length: int, micro: int, plain: bool
) -> None:
    def total(groups: int, size: int, length: int, **more: Any) -> float:
        rollout = Rollout(groups, size, 9, 12, length, length + 5, 0.1)
        return learning(rollout, micro, plain, **{**values, **more}).tokens

    least = total(groups, size, length)
    assert total(groups + 1, size, length) >= least
    assert total(groups, size + 1, length) >= least
    assert total(groups, size, length + 1) >= least
    assert total(groups, size, length, epochs=values["epochs"] + 1) >= least
    assert least > 0
