"""The lines of the rating screen, from what is on the desk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from screens.numbers import span
from screens.preview import advantages, short, show_advantages
from screens.rating_book import Key
from screens.rating_desk import PART, Desk, Visit
from screens.safe import visible
from screens.sample_rows import number
from screens.switching import used
from sessions.hyperparameters import Value, defaults
from sessions.judging import judge, rated_rewards
from sessions.modes import MODES, RatingMode
from sessions.records import Rating, RatingUse, Response, TaskInfo
from sessions.wire import AnyEvent, Skipped

GUIDE = (
    "1. Is the final answer right?   2. Is each step valid?",
    "3. Would you want the model to write like this again?",
    "Unsure after 30 s: x skip, it costs nothing.",
)

PLAIN = "plain"


def skips_of(who: str, events: Iterable[AnyEvent]) -> dict[Key, dict[str, str]]:
    """Group -> letter -> reason: what a person chose not to rate, as far back as the events known reach."""
    skips: dict[Key, dict[str, str]] = {}
    for event in events:
        if isinstance(event, Skipped) and event.skip.who == who:
            skip = event.skip
            skips.setdefault((skip.branch, skip.step, skip.group), {})[skip.letter] = skip.reason
    return skips


def gate_words(values: Mapping[str, Value]) -> str:
    """What the rating gate means for the person rating."""
    gate = str(values.get("rating_gate", "async"))
    if gate == "async":
        return "gate: async, training does not wait"
    kind, _, amount = gate.partition(" ")
    if kind == "wait":
        return f"gate: a step waits for {amount} rated group{'s' if amount != '1' else ''}"
    return f"gate: a step waits at most {amount} s"


def header(desk: Desk) -> str:
    """``group 2 of 14 waiting       you: 37 today, 11 s each``."""
    visit = desk.current
    count, each = desk.book.today()
    you = f"you: {count} today" + (f", {each:.0f} s each" if each else "")
    if visit is None:
        return f" no group waits       {you}"
    name = f"{desk.book.name(visit.key)} (group {visit.place} of {desk.total})" if visit.revealed else (
        f"group {visit.place} of {desk.total} waiting"
    )  # fmt: skip
    part, parts = visit.part
    asked = f"   part {part} of {parts}" if parts > 1 else ""
    return f" {name}{asked}       {you}"


def strip(desk: Desk) -> str:
    """``[A 4] [B 2] >C< [D -]``: a letter in the order shown, with its answer; ``x`` skipped, ``~`` being saved."""
    visit = desk.current
    if visit is None:
        return ""
    answers = desk.book.answers(visit.key)
    first = (visit.part[0] - 1) * PART
    pieces = []
    for at, letter in enumerate(visit.order[first : first + PART], first):
        given = answers.get(letter)
        if given is not None:
            said = given.text + ("~" if given.state == "saving" else "")
        else:
            said = "x" if letter in visit.skipped else "-"
        if at == visit.at:
            pieces.append(f">{letter} {said}<" if said != "-" else f">{letter}<")
        else:
            pieces.append(f"[{letter} {said}]")
    return " ".join(pieces)


def facts(response: Response | None) -> str:
    """What blindness hides of a response."""
    if response is None:
        return ""
    advantage = "" if response.advantage is None else f"   adv {short(response.advantage)}"
    return f"reward {number(response.reward)}{advantage}"


def keys_line(mode: RatingMode) -> str:
    """The mode's own keys."""
    return "  " + "   ".join(f"{key} {word}" for key, (_, word) in mode.keys.items())


def effect(
    desk: Desk, visit: Visit, weight: float, reward_range: tuple[float, float], scale: str
) -> tuple[dict[str, float], dict[str, float]] | None:
    """Advantages without and with the ratings, by letter; None before the group is here or with no rating.

    :param scale: as ``advantage_scale``; :data:`PLAIN` gives the rewards themselves, where a value model turns them
        into an advantage for each token.
    """
    given = desk.book.answers(visit.key)
    if visit.detail is None or not given:
        return None
    responses = visit.detail.group.responses
    rewards = {r.letter: None if r.failed else r.reward for r in responses}
    failed = {r.letter for r in responses if r.failed}
    others = [r for r in visit.detail.ratings if not r.retracted and r.who != desk.who]
    mine = {a.rating.id: a.rating for a in given.values()}
    automatic = {letter: reward for letter, reward in rewards.items() if letter not in failed}
    with_ratings = rewards | rated_rewards(automatic, judge([*others, *mine.values()]), weight, reward_range)
    if scale == PLAIN:
        return {k: v or 0.0 for k, v in rewards.items()}, {k: v or 0.0 for k, v in with_ratings.items()}
    return advantages(rewards, scale), advantages(with_ratings, scale)


def effect_lines(
    desk: Desk, uses: Mapping[str, RatingUse], values: Mapping[str, Value], task: TaskInfo | None, width: int = 200
) -> list[str]:
    """What ratings do to the advantages: of the group shown once it is revealed, else of the one left last."""
    for visit in (desk.current, desk.last_left):
        if visit is None or not (visit.revealed or visit is not desk.current):
            continue
        lines = _effect(desk, visit, uses, values, task, width)
        if lines:
            return lines
    return []


def _effect(
    desk: Desk,
    visit: Visit,
    uses: Mapping[str, RatingUse],
    values: Mapping[str, Value],
    task: TaskInfo | None,
    width: int,
) -> list[str]:
    ratings = [answered.rating for answered in desk.book.answers(visit.key).values()]
    newest = max(ratings, key=lambda rating: rating.time, default=None)
    use = uses.get(newest.id) if newest else None
    name = desk.book.name(visit.key)
    word = "advantages"
    if use is not None and use.advantages:
        before, after, fate = use.automatic, use.advantages, use.describe()
    else:
        weight = float(values.get("human_weight", 1.0))
        scale = str(values.get("advantage_scale", "group"))
        if "value_model" in used({**defaults(), **values}):
            word, scale = "rewards", PLAIN
        found = effect(desk, visit, weight, task.reward_range if task else (0.0, 1.0), scale)
        if found is None:
            return [f" {name}: {use.describe()}"] if use else []
        before, after = found
        fate = use.describe() if use else "preview: no update has used them yet"
    first = f" {name} {word}: automatic  "
    moved = sorted(before, key=lambda letter: -abs(after.get(letter, 0.0) - before[letter]))[:PART]
    for count in range(max(1, len(moved)), 0, -1):  # as many as stand below each other
        kept = [letter for letter in before if letter in moved[:count]]
        lines = [
            first + show_advantages({letter: before[letter] for letter in kept}),
            " -> with your ratings".ljust(len(first)) + show_advantages({k: after.get(k, 0.0) for k in kept}),
        ]
        if max(map(len, lines)) < width:
            break
    others = f" (the other {len(before) - len(kept)} moved less)" if len(before) > len(kept) else ""
    return [*lines, f" {fate}{others}"]


def rating_text(rating: Rating) -> str:
    """``C=4``, as its mode shows it."""
    mode = MODES.get(rating.mode)
    return " ".join(f"{k}={mode.show(v) if mode else f'{v:g}'}" for k, v in rating.values.items())


def last_ratings(desk: Desk, uses: Mapping[str, RatingUse], count: int) -> list[str]:
    """The newest ratings of this person, the newest first; a group still blind goes by its place."""
    lines = []
    for rating in reversed(desk.book.mine()[-count:]):
        key = (rating.branch, rating.step, rating.group)
        visit = desk.visits.get(key)
        blind = visit is not None and visit is desk.current and not visit.revealed
        name = f"group {visit.place}" if blind and visit is not None else desk.book.name(key)
        use = uses.get(rating.id)
        fate = use.describe() if use else "waits for an update"
        if desk.book.state(rating) == "saving":
            fate = "being saved"
        comment = f"   {visible(rating.comment)}" if rating.comment else ""
        seconds = f"{span(rating.seconds)}" if rating.seconds else ""
        lines.append(f" {name:<10} {rating_text(rating):<8} {seconds:<6} {fate}{comment}")
    return lines
