"""From the words of rewards to components."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine.rewards.component import Component, RewardFunction
from engine.rewards.functions import exact_match, last_number_reward
from sessions.errors import UsageError
from sessions.reward_kinds import RewardSpec
from sessions.specs import OptionValue

MAKERS: dict[str, Callable[[Mapping[str, OptionValue]], RewardFunction]] = {
    "exact": lambda options: exact_match,
    "last_number": lambda options: last_number_reward,
}
"""Built-in reward (:mod:`sessions.reward_kinds`) -> its options -> the function."""


def load_components(rewards: Sequence[RewardSpec], own: Mapping[str, Component]) -> dict[str, Component]:
    """The components that were asked for, in order.

    :param own: those that come with the task; ``task`` among the rewards names them.
    :raises UsageError: if one cannot be made, or two have the same name.
    """
    components: dict[str, Component] = {}
    for reward in rewards:
        if reward.kind.name == "task":
            made = dict(own)
        else:
            made = {reward.name: Component(MAKERS[reward.kind.name](reward.options), reward.weight)}
        for name in made.keys() & components.keys():
            raise UsageError(f"reward {reward.spec.use}: there is another component {name}; add name=... to it")
        components |= made
    return components
