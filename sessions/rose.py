"""The responses whose reward rose most since a step: where to look when a reward is suspected of being gamed.

The rise of a response is its automatic reward minus what the same prompt earned up to that step (the mean over its
newest groups there); where the prompt had not been asked by then, minus what the steps up to it earned on average.
Ratings play no part in it: they are shown beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from sessions.errors import InvalidValue
from sessions.hyperparameters import REWARD_WEIGHT
from sessions.records import REWARD_MODEL, Group, Record, Response, shorten

if TYPE_CHECKING:
    from sessions.store import Store

BACK = 100
"""Steps that one looks back where no step is given."""
NEWEST = 5
"""Newest steps whose responses are looked at."""
MOST_GROUPS = 200
"""Newest groups that are, at most."""
EARLIER = 8
"""Newest groups of a prompt that its earlier reward is the mean of."""
STEPS = 50
"""Steps that the reward of a prompt not asked before is compared with the mean of."""
LONGEST_TEXT, LONGEST_PROMPT = 4000, 1000
"""Characters of a response and of a prompt that an answer holds; `response NAME` has all of it."""


class Shown(Record):
    """A response with what there is to judge it by.

    :ivar reward: the automatic one.
    :ivar rating: what people said of it, as its mode shows it; empty where nobody did.
    """

    name: str
    text: str
    length: int
    reward: float | None = None
    repetition: float | None = None
    components: dict[str, float | None] = {}
    rating: str = ""


class Rose(Record):
    """A response whose reward rose.

    :ivar rise: of its reward over ``before``.
    :ivar over: what ``before`` is the mean of: earlier groups of the same ``prompt``, or ``steps``.
    :ivar groups: how many groups, where it is of the prompt.
    :ivar alike: responses of the group with the very same text, this one counted.
    :ivar best: the earlier response to the prompt that earned most.
    """

    prompt: str
    rise: float
    before: float
    over: Literal["prompt", "steps"]
    groups: int = 0
    alike: int = 1
    response: Shown = msgspec.field(default_factory=lambda: Shown(name="", text="", length=0))
    best: Shown | None = None


class Roses(Record):
    """The answer: the rows, the largest rise first.

    :ivar since: the step that rewards are compared with.
    :ivar first: first of the steps whose responses were looked at, up to ``newest``.
    :ivar looked: how many responses were.
    :ivar mean: mean automatic reward of the steps up to ``since``; None where none was measured.
    :ivar checks: reward components of weight 0.
    """

    branch: str
    since: int
    first: int
    newest: int
    looked: int
    mean: float | None
    checks: list[str] = []
    rows: list[Rose] = []


WEIGHTS = "components"
"""Where the database's meta table has the reward components of the task, name -> weight."""
Rated = Callable[[Group], Mapping[str, str]]
"""Given a group, letter -> what people said of the response."""


def weights_in(store: Store, branch: str) -> dict[str, float]:
    """The reward components of a session and their weights, as they were at the end of a branch."""
    kept, last = store.meta(WEIGHTS), store.last_step(branch)
    weights = msgspec.json.decode(kept, type=dict[str, float]) if kept else {}
    learned = last.values.get("reward_model_weight", 0.0) if last is not None else 0.0
    values = last.values if last is not None else {}
    for name in weights:  # as they were set since
        if isinstance(weight := values.get(REWARD_WEIGHT + name), int | float):
            weights[name] = float(weight)
    return {REWARD_MODEL: float(learned), **weights} if isinstance(learned, int | float) else weights


def rated_now(store: Store) -> Rated:
    """What people have said by now."""
    return lambda group: store.heads_of([group])[0].ratings


@dataclass(frozen=True, slots=True)
class _Earlier:
    """What a prompt earned up to a step.

    :ivar level: mean reward; None where nothing was earned.
    :ivar best: the response that earned most, with its group.
    """

    groups: int
    level: float | None
    best: tuple[Group, Response] | None


def roses(
    store: Store,
    branch: str,
    step: int = 0,
    limit: int = 20,
    *,
    before: int = 0,
    rated: Rated,
) -> Roses:
    """The responses of a line's newest steps whose reward rose most since a step.

    What is read is bounded, whatever the length of the session: :data:`MOST_GROUPS` groups, and :data:`EARLIER` of each
    of their prompts.

    :param step: 0: :data:`BACK` before the newest.
    :param limit: most rows.
    :param before: only responses of earlier steps than this one; 0: all.
    :raises InvalidValue: if there is nothing after that step.
    """
    groups = store.newest_groups(branch, before=before, limit=MOST_GROUPS)
    if not groups:
        raise InvalidValue("no response has been scored yet, so none has risen")
    newest = groups[0].step
    since = step or max(1, newest - BACK)
    if since >= newest:
        raise InvalidValue(f"step {since} is not before the newest one, {newest}; give an earlier one: rose STEP")
    groups = [group for group in groups if group.step > max(since, newest - NEWEST)]
    mean = _mean(store.mean_rewards(branch, since, STEPS))
    known: dict[str, _Earlier] = {}
    found: list[tuple[Rose, Group, Response]] = []
    for group in groups:
        if group.prompt_id not in known:
            known[group.prompt_id] = _earlier(store.groups_of_prompt(branch, group.prompt_id, since, EARLIER))
        found += _risen(group, known[group.prompt_id], mean)
    found.sort(key=lambda row: (-row[0].rise, row[0].over == "steps", -row[1].step, row[1].number))
    for rose, group, response in found[:limit]:
        best = known[group.prompt_id].best
        rose.response = _shown(group, response, rated)
        rose.best = _shown(*best, rated) if best is not None else None
    rows = [rose for rose, *_ in found[:limit]]
    measured = {name for rose in rows for name, value in rose.response.components.items() if value is not None}
    return Roses(
        branch=branch,
        since=since,
        first=groups[-1].step,
        newest=newest,
        looked=sum(len(_scored(group)) for group in groups),
        mean=mean,
        checks=[name for name, weight in weights_in(store, branch).items() if weight == 0 and name in measured],
        rows=rows,
    )


def _earlier(groups: Sequence[Group]) -> _Earlier:
    """Of the groups of one prompt, the newest first."""
    scored = [(group, response, reward) for group in groups for response, reward in _scored(group)]
    best = max(scored, key=lambda row: row[2], default=None)
    return _Earlier(len(groups), _mean([reward for *_, reward in scored]), best[:2] if best else None)


def _risen(group: Group, earlier: _Earlier, mean: float | None) -> list[tuple[Rose, Group, Response]]:
    """The responses of a group that earned more than was earned before; of equal texts the first."""
    level = mean if earlier.level is None else earlier.level
    texts: dict[str, tuple[Rose, Group, Response]] = {}
    for response, reward in _scored(group):
        if level is None or reward <= level:
            continue
        if response.text in texts:
            texts[response.text][0].alike += 1
            continue
        rose = Rose(
            prompt=shorten(group.prompt, LONGEST_PROMPT),
            rise=reward - level,
            before=level,
            over="steps" if earlier.level is None else "prompt",
            groups=earlier.groups,
        )
        texts[response.text] = rose, group, response
    return list(texts.values())


def _scored(group: Group) -> list[tuple[Response, float]]:
    """The responses of a group that have an automatic reward, and it."""
    return [(r, r.reward) for r in group.responses if r.reward is not None and not r.failed]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _shown(group: Group, response: Response, rated: Rated) -> Shown:
    return Shown(
        name=f"{group.name}{response.letter}",
        text=shorten(response.text, LONGEST_TEXT),
        length=response.length,
        reward=response.reward,
        repetition=response.repetition,
        components=response.components,
        rating=rated(group).get(response.letter, ""),
    )
