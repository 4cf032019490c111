"""From the words of rewards to components."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.rewards.component import Component, RewardFunction
from engine.rewards.functions import exact, numeric
from engine.rewards.json_text import valid_json
from engine.rewards.lengths import length, scaled_by_length
from engine.rewards.named import NamedRewards
from engine.rewards.patterns import pattern_reward
from engine.rewards.repeats import repetition
from engine.rewards.tags import tagged
from sessions.errors import UsageError
from sessions.reward_kinds import NAMED, RewardSpec
from sessions.specs import OptionValue, names

Options = Mapping[str, OptionValue]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where reward functions run.

    :ivar timeout: seconds that one may take for a group.
    :ivar device: of the policy, as torch names it.
    :ivar folder: in which functions of people's work and modules are looked for.
    :ivar talks: whether the task's prompts are chat messages.
    """

    timeout: float = 60.0
    device: str = "cpu"
    trust_remote_code: bool = False
    folder: str = ""
    talks: bool = False


Maker = Callable[[Options, Surroundings], RewardFunction]


def _regex(o: Options, _: Surroundings) -> RewardFunction:
    return pattern_reward(
        str(o["pattern"]),
        match=str(o["match"]),
        case=bool(o["case"]),
        value=float(o["value"]),
        otherwise=float(o["otherwise"]),
    )


def _json(o: Options, _: Surroundings) -> RewardFunction:
    return valid_json(part=str(o["part"]), keys=names(o["keys"]), schema=str(o["schema"]), partial=float(o["partial"]))


def _length(o: Options, _: Surroundings) -> RewardFunction:
    target = int(o["target"])
    return length(target=target, limit=int(o["limit"]) or target, unit=str(o["unit"]), shape=str(o["shape"]))


def _cosine(o: Options, where: Surroundings) -> RewardFunction:
    correct = str(o["correct"])
    defaults: dict[str, Options] = {"exact": {"case": True, "blanks": "ends"}, "last_number": {"tolerance": 0.0}}
    return scaled_by_length(
        MAKERS[correct]({"after": o["after"], **defaults.get(correct, {})}, where),
        limit=int(o["limit"]),
        unit=str(o["unit"]),
        right=(float(o["right_short"]), float(o["right_long"])),
        wrong=(float(o["wrong_short"]), float(o["wrong_long"])),
    )


def _format(o: Options, _: Surroundings) -> RewardFunction:
    return tagged(names(o["tags"]), rest=bool(o["rest"]), opened=bool(o["opened"]), partial=bool(o["partial"]))


def _math(o: Options, where: Surroundings) -> RewardFunction:
    from engine.rewards.math_answers import MathReward

    return MathReward(mark=str(o["after"]), seconds=where.timeout)


def _model(o: Options, where: Surroundings) -> RewardFunction:
    from engine.rewards.classifier import Classifier  # brings torch and transformers

    return Classifier(
        Path(str(o["path"])),
        where.device,
        chat=bool(o["chat"]),
        talks=where.talks,
        trust_remote_code=where.trust_remote_code,
    )


def _command(o: Options, where: Surroundings) -> RewardFunction:
    from engine.rewards.command import Command

    return Command(str(o["run"]), folder=str(o["folder"]), seconds=where.timeout, through_shell=bool(o["shell"]))


MAKERS: dict[str, Maker] = {
    "exact": lambda o, _: exact(case=bool(o["case"]), blanks=str(o["blanks"]), mark=str(o["after"])),
    "last_number": lambda o, _: numeric(tolerance=float(o["tolerance"])),
    "regex": _regex,
    "json": _json,
    "length": _length,
    "cosine": _cosine,
    "repetition": lambda o, _: repetition(n=int(o["n"]), penalty=float(o["penalty"]), unit=str(o["unit"])),
    "format": _format,
    "math": _math,
    "model": _model,
    "command": _command,
}
"""Built-in reward (:mod:`sessions.reward_kinds`) -> its options and where it runs -> the function."""


def load_named(rewards: Sequence[RewardSpec], columns: Sequence[str], where: Surroundings) -> NamedRewards | None:
    """Those rewards that are functions of people's, loaded in a process of their own; None where there are none.

    :param columns: of the task's rows.
    :raises UsageError: if one cannot be loaded.
    """
    named = [reward for reward in rewards if reward.kind is NAMED]
    return NamedRewards(named, columns, where.folder, where.timeout) if named else None


def load_components(
    rewards: Sequence[RewardSpec],
    own: Mapping[str, Component],
    where: Surroundings | None = None,
    named: NamedRewards | None = None,
) -> dict[str, Component]:
    """The components that were asked for, in order.

    :param own: those that come with the task; ``task`` among the rewards names them.
    :param named: what runs those that are functions of people's.
    :raises UsageError: if one cannot be made, or two have the same name.
    """
    components: dict[str, Component] = {}
    for reward in rewards:
        if reward.kind.name == "task":
            made = dict(own)
        elif reward.kind is NAMED and named is not None:
            made = {reward.name: Component(named.function(reward.name), reward.weight)}
        else:
            function = MAKERS[reward.kind.name](reward.options, where or Surroundings())
            made = {reward.name: Component(function, reward.weight)}
        for name in made.keys() & components.keys():
            raise UsageError(f"reward {reward.spec.use}: there is another component {name}; add name=... to it")
        components |= made
    return components
