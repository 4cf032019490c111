"""Late ratings: what becomes of a rating whose group has had its update.

A rated group whose update has passed joins the next one as an extra group: its recorded tokens, its recorded sampling
log-probabilities as l_old, its advantages computed again with the ratings. It joins while the policy has moved by at
most ``rating_max_kl`` on its tokens, once for each new rating; otherwise the rating is only kept for a reward model.
The record says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sessions.modes import MODES
from sessions.records import Group, Rating, RatingUse, ResponseName
from sessions.store import Store

if TYPE_CHECKING:
    from engine.rollout import RolloutGroup


DISCARDED = "its step was discarded"
REPLACED = "a later rating took its place"


@dataclass
class Candidate:
    """The open ratings of one group of an earlier step.

    :ivar group: None if it cannot join an update; ``why`` says so.
    """

    name: str
    ratings: list[Rating] = field(default_factory=list)
    group: Group | None = None
    why: str = ""


def collect(store: Store, branch: str, step: int, drift_limit: float) -> list[Candidate]:
    """Groups of earlier steps with ratings whose fate is open; on the store's thread.

    :param step: the step in progress; its own groups are not late.
    """
    candidates: dict[str, Candidate] = {}
    for rating in store.unsettled_ratings(branch):
        name = f"{rating.step}.{rating.group}"
        candidate = candidates.setdefault(name, Candidate(name))
        candidate.ratings.append(rating)
    for candidate in candidates.values():
        where = ResponseName(candidate.ratings[0].step, candidate.ratings[0].group)
        group = store.group(where, branch)
        standing = {r.id for r in store.standing_ratings(where, branch)}
        if group.status == "scored" and group.step == step:
            continue
        moving = [r for r in candidate.ratings if beside_updates(r) is None]
        if not moving:
            continue
        if not any(r.id in standing for r in moving):
            candidate.why = REPLACED
        elif group.status == "discarded":
            candidate.why = DISCARDED
        elif not all(r.tokens for r in group.responses):
            candidate.why = "its tokens are no longer kept"
        elif drift_limit <= 0:
            candidate.why = "rating_max_kl is 0"
        else:
            candidate.group = group
    return list(candidates.values())


@dataclass(frozen=True, slots=True)
class Standing:
    """The ratings that an update sees.

    :ivar ratings: group name -> its standing ratings.
    :ivar open: ids of those whose fate is open.
    """

    ratings: Mapping[str, Sequence[Rating]]
    open: frozenset[str]


def standing_for(store: Store, branch: str, groups: Sequence[Group]) -> Standing:
    """Look up the ratings of the groups of an update; on the store's thread."""
    found: dict[str, list[Rating]] = {}
    for of_branch, of_step in dict.fromkeys((group.branch, group.step) for group in groups):
        standing = store.standing_of_step(of_branch, of_step)
        named = {g.number: g.name for g in groups if (g.branch, g.step) == (of_branch, of_step)}
        found |= {named[number]: ratings for number, ratings in standing.items() if number in named}
    return Standing(found, frozenset(r.id for r in store.unsettled_ratings(branch)))


def fates(
    step: int,
    candidates: Sequence[Candidate],
    drifts: Mapping[str, float],
    drift_limit: float,
    rollout: Sequence[RolloutGroup],
    standing: Standing,
) -> list[RatingUse]:
    """What became of every open rating in this update.

    :param candidates: groups of earlier steps with open ratings.
    :param drifts: group name -> mean k3(old, now) on its tokens, for the groups that could have joined.
    :param rollout: the groups the update learned from.
    :param standing: the ratings that it saw.
    """
    uses = [
        _used(step, group, rating, drifts.get(group.record.name))
        for group in rollout
        for rating in standing.ratings.get(group.record.name, ())
        if rating.id in standing.open
    ]
    settled = {use.rating for use in uses}
    joined = {group.record.name for group in rollout}
    for candidate in candidates:
        for rating in candidate.ratings:
            if rating.id in settled:
                continue
            if (aside := beside_updates(rating)) is not None:
                uses.append(aside)
            elif candidate.name in joined:
                uses.append(_unused(rating, candidate.name, REPLACED))
            elif candidate.why in {REPLACED, DISCARDED}:
                uses.append(_unused(rating, candidate.name, candidate.why))
            elif candidate.why:
                uses.append(_kept(rating, candidate.name, candidate.why, None))
            elif candidate.group is not None:
                drift = drifts[candidate.name]
                why = f"the policy has moved {drift:.3f} nats on it, over rating_max_kl {drift_limit:g}"
                uses.append(_kept(rating, candidate.name, why, drift))
    return uses


def _unused(rating: Rating, group: str, why: str) -> RatingUse:
    return RatingUse(rating=rating.id, group=group, fate="unused", why=why)


def _kept(rating: Rating, group: str, why: str, drift: float | None) -> RatingUse:
    return RatingUse(rating=rating.id, group=group, fate="reward_model_only", why=why, kl=drift)


def beside_updates(rating: Rating) -> RatingUse | None:
    """What becomes of a rating that no update learns from, whenever it comes; None of one that an update may."""
    name = f"{rating.step}.{rating.group}"
    if rating.repeats:
        return _unused(rating, name, "a silent repeat; it measures how far you agree with yourself")
    mode = MODES.get(rating.mode)
    if mode is None or mode.moves_rewards:
        return None
    if mode.slot == "edit":
        return _kept(rating, name, "an edit is a demonstration and a pair", None)
    return _unused(rating, name, "a critique moves no reward; it is kept and exported")


def _used(step: int, group: RolloutGroup, rating: Rating, drift: float | None) -> RatingUse:
    if (aside := beside_updates(rating)) is not None:
        return aside
    failed = {r.letter for r in group.record.responses if r.failed}
    if set(rating.values) <= failed:
        why = "a reward function failed on the response, which leaves it out of the update"
        return RatingUse(rating=rating.id, group=group.record.name, fate="unused", why=why)
    names = [r.letter for r in group.record.responses]
    return RatingUse(
        rating=rating.id,
        group=group.record.name,
        fate="on_time" if drift is None else "late",
        step=step,
        kl=drift,
        advantages=dict(zip(names, group.advantages, strict=True)),
        automatic=dict(zip(names, group.automatic, strict=True)),
    )
