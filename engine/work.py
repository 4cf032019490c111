"""What a step does, in counts: tokens sampled, tokens passed through the model, optimizer steps.

Nothing here knows how fast the machine is (:mod:`engine.pace`) or how large the model (:mod:`engine.sizes`).
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass

from engine.knobs import Knobs

FORWARD, TRAINED = 1.0, 3.0
"""Cost of a token in a forward pass, and in one with its backward pass, in forward passes."""
PRODUCT, GRAPH = 3.5, 3.0
"""The same of an exact Fisher product, and of the graph that it differentiates."""
DIFFERENCE = 2 * TRAINED
"""The same of a product by difference: two gradients."""
TRIES = 2.0
"""Tries of a line search that none has been seen of yet."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The responses of a step, measured or expected.

    :ivar prompt: mean tokens of a prompt.
    :ivar width: tokens of the longest prompt.
    :ivar response: mean tokens of a response.
    :ivar longest: tokens of the longest response, which is the number of decode steps.
    :ivar dead: share of groups whose advantages are all 0.
    """

    groups: float
    group_size: float
    prompt: float
    width: float
    response: float
    longest: float
    dead: float = 0.0

    @property
    def rows(self) -> float:
        return self.groups * self.group_size

    @property
    def sampled(self) -> float:
        """Response tokens."""
        return self.rows * self.response

    def tokens(self, *, tree: bool) -> float:
        """Tokens of one pass over the rollout.

        :param tree: whether a prompt's tokens are passed once a group and nothing is padded, or every response is a
            row as wide as the longest prompt and the longest response.
        """
        if tree:
            return self.groups * self.prompt + self.sampled
        return self.rows * (self.width + self.longest)


@dataclass(frozen=True, slots=True)
class Search:
    """What a TRPO update has needed: iterations of conjugate gradient, and tries of the line search."""

    iterations: float
    tries: float = TRIES
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Learning:
    """An update, counted.

    :ivar tokens: passed through the model, in tokens of a forward pass.
    :ivar calls: of the model, in forward calls.
    :ivar steps: of an optimizer.
    :ivar passes: name -> its share of ``tokens``.
    """

    tokens: float
    calls: float
    steps: float
    passes: dict[str, float]


def sampling(rollout: Rollout) -> list[float]:
    """Decode steps, response tokens and prompt tokens read."""
    return [rollout.longest, rollout.sampled, rollout.groups * rollout.width]


def learning(
    rollout: Rollout,
    knobs: Knobs,
    micro_tokens: int,
    shortcuts: Set[str],
    *,
    compares: float,
    value_only: bool = False,
    search: Search | None = None,
) -> Learning:
    """Everything between the rewards and the changed policy.

    :param micro_tokens: that one forward and backward may hold.
    :param shortcuts: of :mod:`sessions.shortcuts` that are taken.
    :param compares: how often the exact divergence from the reference is measured: 1 in a step that does it, 0 in one
        that does not, the share of such steps for the mean step.
    :param value_only: whether the policy rests while its value model warms up.
    :param search: what TRPO needs; None: nothing is known but the hyperparameters.
    """
    whole = rollout.tokens(tree="tree" in shortcuts)
    algorithm, beta = knobs.text("algorithm"), knobs.number("kl_coefficient")
    batches = max(1.0, math.ceil(whole / micro_tokens))
    passes: dict[str, float] = {}
    calls = steps = 0.0

    def add(name: str, cost: float, times: float = 1.0, tokens: float = whole, cut: float = batches) -> None:
        """A pass over the rollout, so many times."""
        nonlocal calls
        if times > 0:
            passes[name] = passes.get(name, 0.0) + cost * times * tokens
            calls += cost * times * cut

    full = algorithm == "grpo" and knobs.text("kl_estimator") == "full" and beta > 0
    add("reference", FORWARD, 1.0 if beta > 0 else compares)
    add("reference", 2 * FORWARD, 0.0 if full else compares)
    optimizer = stepped(knobs, rollout.groups)
    parts = min(float(knobs.whole("minibatches")), rollout.groups)
    minibatch = parts * max(1.0, math.ceil(whole / parts / micro_tokens))  # micro-batches of one epoch
    epochs = float(knobs.whole("epochs"))
    separate = knobs.text("value_model") == "separate" and has_values(knobs)
    if has_values(knobs):
        add("old", FORWARD * (2 if separate else 1))
        alone = value_only or algorithm == "trpo"
        cost = (FORWARD if alone else TRAINED) + (TRAINED if separate else 0)
        add("value model" if alone else "update", cost, epochs, cut=minibatch)
        steps += optimizer * (1 if alone else 2 if separate else 1)
    if algorithm == "grpo":
        add("old", FORWARD, 0.0 if optimizer == 1 or "sampler_logprobs" in shortcuts else 1.0)
        skips = "skip_zero" in shortcuts and beta == 0 and knobs.number("entropy_bonus") == 0
        taught = whole * (1 - rollout.dead if skips else 1)
        add("update", TRAINED + (FORWARD if full else 0), epochs, taught, minibatch)
        steps += optimizer
    if algorithm == "trpo" and not value_only:
        found = search or Search(float(knobs.whole("cg_iterations")))
        exact = found.exact and knobs.text("fisher_product") != "difference"
        seen = math.ceil(knobs.number("fisher_fraction") * rollout.groups) / rollout.groups * whole
        products = 1 + min(found.iterations, float(knobs.whole("cg_iterations")))
        kept = math.ceil(seen / micro_tokens) <= 1  # the graph of one micro-batch is made once
        add("gradient", TRAINED)
        add("Fisher products", PRODUCT if exact else DIFFERENCE, products, seen)
        add("Fisher products", GRAPH, (1.0 if kept else products) if exact else 0.0, seen)
        add("line search", FORWARD, min(found.tries, float(knobs.whole("backtracks"))))
    return Learning(sum(passes.values()), calls, steps, passes)


def stepped(knobs: Knobs, groups: float) -> float:
    """Optimizer steps of an update by GRPO or PPO."""
    return knobs.whole("epochs") * min(float(knobs.whole("minibatches")), groups)


def has_values(knobs: Knobs) -> bool:
    """Whether advantages come from a value model."""
    algorithm = knobs.text("algorithm")
    return algorithm == "ppo" or (algorithm == "trpo" and knobs.text("baseline") == "value")


def shared_by(every: int) -> float:
    """The share of steps in which something happens that is done every so many; 0: never."""
    return 1 / every if every else 0.0
