"""Which responses a metric owes its value to, where one can say: an alarm names them, so that people can open them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from sessions.records import Group, Response, head_of
from sessions.watches import Apart, Condition, Limit, NonFinite, Watch, metrics_of

MOST = 8
"""Responses that one alarm names."""
HIGHEST = 3
"""Responses that it names where they are the extremes of many."""
LONGEST_REASON = 200
"""Characters of why a reward function failed, in an alarm."""

Measure = Callable[[Response], float | None]


def blamed(condition: Condition, groups: Sequence[Group], named: Mapping[str, Sequence[str]] = {}) -> list[str]:
    """Names of responses (or of groups that are dead), at most :data:`MOST`; empty where one cannot say.

    :param groups: that the step learned from.
    :param named: metric -> names, of metrics that these groups do not show.
    """
    if isinstance(condition, NonFinite):
        return _where(groups, _not_finite)[:MOST]
    for metric in metrics_of(condition):
        if named.get(metric):
            return list(named[metric])[:MOST]
    if isinstance(condition, Apart) and condition.way == "rises" and condition.other_way == "falls":
        match condition.metric.split("/"), condition.other.split("/"):
            case ["reward", "mean" | "automatic"], ["reward", check]:
                return _gamed(groups, check)
    low = isinstance(condition, Limit) and condition.sign in ("<", "<=")
    if isinstance(condition, Apart):
        low = condition.way == "falls"
    for metric in metrics_of(condition):
        if names := _of(metric, groups, low=low):
            return names[:MOST]
    return []


def _of(metric: str, groups: Sequence[Group], *, low: bool) -> list[str]:
    match metric.split("/"):
        case ["response", "truncated_fraction"]:
            return _where(groups, lambda r: not r.ended)
        case ["response", "failed"]:
            return _where(groups, lambda r: bool(r.failed))
        case ["groups", "dead_fraction" | "all_right_fraction" | "all_wrong_fraction"]:
            return [g.name for g in groups if "dead" in head_of(g).flags]
        case ["response", "length"]:
            return _extremes(groups, lambda r: float(r.length), low=low)
        case ["response", "repetition"]:
            return _extremes(groups, lambda r: r.repetition, low=low)
        case ["reward", "length_correlation"]:
            return _both_ends(groups, lambda r: float(r.length))
        case ["reward", "repetition_correlation"]:
            return _both_ends(groups, lambda r: r.repetition)
        case ["reward", "mean" | "std" | "automatic"]:
            return _extremes(groups, _reward, low=low)
        case ["reward", component]:
            return _extremes(groups, lambda r: r.components.get(component), low=low)
        case ["advantage", *_]:
            return _extremes(groups, _largest_advantage)
        case ["kl", "k1" | "k2" | "k3" | "full"]:
            return _extremes(groups, lambda r: r.kl)
        case ["entropy"]:
            return _extremes(groups, lambda r: sum(r.entropies) / len(r.entropies) if r.entropies else None, low=True)
    return []


def _gamed(groups: Sequence[Group], check: str) -> list[str]:
    """The responses with the highest reward; of equal ones those first that a held-out check likes least."""
    found = [
        (-reward, value, f"{g.name}{r.letter}")
        for g in groups
        for r in g.responses
        if (reward := _reward(r)) is not None and (value := r.components.get(check)) is not None
    ]
    return [name for _, _, name in sorted(found, key=lambda row: row[:2])[:HIGHEST]]


def _both_ends(groups: Sequence[Group], measure: Measure) -> list[str]:
    highest = _extremes(groups, measure)
    return highest + [name for name in _extremes(groups, measure, low=True) if name not in highest]


def _reward(response: Response) -> float | None:
    return response.reward if response.rated_reward is None else response.rated_reward


def _largest_advantage(response: Response) -> float | None:
    """The largest abs advantage of its tokens, which are all the same without a value model."""
    whole = [] if response.advantage is None else [response.advantage]
    return max(map(abs, response.advantages or whole), default=None)


def _not_finite(response: Response) -> bool:
    numbers = [response.reward, response.rated_reward, response.advantage, response.kl]
    for many in (response.logprobs, response.reference_logprobs, response.entropies, response.values, response.returns):
        numbers += many
    return any(n is not None and not math.isfinite(n) for n in numbers)


def _where(groups: Sequence[Group], is_one: Callable[[Response], bool]) -> list[str]:
    return [f"{g.name}{r.letter}" for g in groups for r in g.responses if is_one(r)]


def _extremes(groups: Sequence[Group], measure: Measure, *, low: bool = False) -> list[str]:
    """The responses with the largest measure, or the smallest; those that have none are left out."""
    found = [(v, f"{g.name}{r.letter}") for g in groups for r in g.responses if (v := measure(r)) is not None]
    return [name for _, name in sorted(found, key=lambda pair: pair[0], reverse=not low)[:HIGHEST]]


def first_failure(watch: Watch, groups: Iterable[Group]) -> str:
    """Why a reward function failed on the first response of those that it did, where a watch is about that."""
    if not isinstance(watch.condition, Limit) or not watch.condition.metric.startswith("response/failed"):
        return ""
    why = next((r.failed for group in groups for r in group.responses if r.failed), "")
    line = " ".join(why.split())
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"
