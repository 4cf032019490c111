"""What goes with a change: the knobs that follow another algorithm, what it uses, and what is kept. No Textual."""

from __future__ import annotations

from collections.abc import Mapping

from sessions.commands import Command, Set
from sessions.errors import UsageError
from sessions.hyperparameters import HYPERPARAMETERS, NONE, Value, hyperparameter, knobs_of, switched
from sessions.presets import preset


def steered(name: str, values: Mapping[str, Value]) -> bool:
    """Whether the engine moves this knob by itself now: ``kl_coefficient``, on its way to ``kl_target``."""
    target = HYPERPARAMETERS["kl_target"]
    if name != "kl_coefficient" or not target.used_by(str(values.get("algorithm")), values):
        return False
    return values.get("kl_target", NONE) != NONE


def followers(values: Mapping[str, Value], wanted: Mapping[str, Value]) -> dict[str, Value]:
    """The knobs that follow by themselves when some are set."""
    return {name: value for name, value in switched(values, wanted).items() if name not in wanted}


def arrows(values: Mapping[str, Value], new: Mapping[str, Value]) -> str:
    """``kl_placement loss -> reward, kl_estimator k3 -> k1``."""
    return ", ".join(
        f"{name} {hyperparameter(name).show(values[name])} -> {hyperparameter(name).show(value)}"
        for name, value in new.items()
    )


def following_words(values: Mapping[str, Value], wanted: Mapping[str, Value]) -> str:
    """What follows by itself when some are set; empty if nothing does."""
    return arrows(values, followers(values, wanted))


def told_with(values: Mapping[str, Value], command: Command) -> str:
    """What follows from a command, in words, before it is sent; empty for another command than ``set``.

    Of a preset, everything that it changes.
    """
    if not isinstance(command, Set) or not values:
        return ""
    try:
        if command.preset:
            published = preset(command.preset).settings(int(values["max_new_tokens"]))
            changed = switched(values, {**published, **command.values})
            return arrows(values, {n: changed[n] for n in HYPERPARAMETERS if changed.get(n, values[n]) != values[n]})
        return following_words(values, {hyperparameter(name).name: value for name, value in command.values.items()})
    except UsageError:
        return ""  # a name that the engine will refuse


def used(values: Mapping[str, Value]) -> set[str]:
    """Names of the knobs that are read under these values."""
    algorithm = str(values["algorithm"])
    return {name for name, knob in knobs_of(values).items() if knob.used_by(algorithm, values)}


def switch_lines(due: Mapping[str, Value], ahead: Mapping[str, Value]) -> list[str]:
    """What another algorithm (or baseline) begins to use, stops using, and what is kept.

    :param due: the values in force or on their way.
    :param ahead: the same with everything that is staged, and what follows.
    """
    before, after = used(due), used(ahead)
    old, new = str(due["algorithm"]), str(ahead["algorithm"])
    begun = [name for name in HYPERPARAMETERS if name in after - before]
    ended = [name for name in HYPERPARAMETERS if name in before - after]
    if old == new and not begun and not ended:
        return []
    lines = [kept(old, new, "value_model" in before, "value_model" in after, ahead)]
    if begun:
        values = ", ".join(f"{name} {hyperparameter(name).show(ahead[name])}" for name in begun)
        lines.append(f"{new} also uses: {values}")
    if ended:
        lines.append(f"not used any more (!), kept as they are: {', '.join(ended)}")
    return lines


def kept(old: str, new: str, had_value: bool, has_value: bool, ahead: Mapping[str, Value]) -> str:
    """What stays when the algorithm changes: the policy, the optimizer's state, the value model."""
    parts = ["the policy"]
    if old != new and new == "trpo":
        parts.append("the optimizer's state, which waits for grpo or ppo (trpo steps without it)")
    elif old == "trpo" and new != "trpo":
        parts.append("the optimizer's state from before trpo")
    else:
        parts.append("the optimizer and its state" + (", which grpo and ppo share" if old != new else ""))
    warmup = f"a new one is first trained alone for {ahead['value_warmup_steps']} steps"
    if had_value and not has_value:
        parts.append("the value model, at rest until it is used again")
    elif has_value and not had_value:
        parts.append(f"the value model, if there was one ({warmup})")
    elif has_value:
        parts.append("the value model")
    return "kept: " + "; ".join(parts)
