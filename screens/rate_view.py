"""The lines of the rating screen, from what is on the desk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from screens.numbers import span
from screens.preview import advantages, short, show_advantages
from screens.rating_book import Act
from screens.rating_desk import PART, Desk, Visit
from screens.safe import visible
from screens.sample_rows import number
from screens.switching import used
from screens.widgets.rank_list import RankRow
from sessions.hyperparameters import Value, defaults
from sessions.judging import judge, rated_rewards, standing
from sessions.modes import CRITIQUE, EDIT, FLAGS, MODES, PAIR, RANK
from sessions.records import Rating, RatingUse, Response, SkipRecord, TaskInfo

GUIDE = (
    "1. Is the final answer right?   2. Is each step valid?",
    "3. Would you want the model to write like this again?",
    "Unsure after 30 s: x skip, it costs nothing.",
)

PLAIN = "plain"


def gate_words(values: Mapping[str, Value]) -> str:
    """What the rating gate means for the person rating."""
    gate = str(values.get("rating_gate", "async"))
    if gate == "async":
        return "gate: async, training does not wait"
    kind, _, amount = gate.partition(" ")
    if kind == "wait":
        return f"gate: a step waits for {amount} rated group{'s' if amount != '1' else ''}"
    return f"gate: a step waits at most {amount} s"


def header(desk: Desk, width: int = 80) -> str:
    """``group 2   14 waiting       you: 37 today, 11 s each   self-agreement .86``, as much as there is room for."""
    visit = desk.current
    count, each = desk.book.today()
    agreement, hourly = desk.book.figures()
    you = f"you: {count} today" + (f", {each:.0f} s each" if each else "")
    agrees = f"   self-agreement {plain(agreement.value)}" if agreement is not None else ""
    pace = f"   {hourly:.0f} an hour" if hourly is not None else ""
    left = "no group waits"
    asked = short_asked = ""
    if visit is not None:
        called = f"group {visit.place}"
        if visit.revealed:
            called = f"{desk.book.name(visit.key)} ({called})"
        left = f"{called}   {desk.total} waiting"
        part, parts = visit.part
        rule = f", rule: {visit.rule}" if visit.rule not in ("", "newest") else ""
        if desk.mode is PAIR and visit.pair is not None:
            pair = "   pair {} vs {} ({} of {}{})"
            place = (*visit.pair, visit.pair_at + 1, len(visit.pairs or ()))
            asked, short_asked = pair.format(*place, rule), pair.format(*place, "")
        elif parts > 1:
            asked = short_asked = f"   part {part} of {parts}"
        elif visit.rule not in ("", "newest"):
            asked = f"   rule: {visit.rule}"
    for middle, right in (
        (asked, you + agrees + pace), (asked, you + agrees), (short_asked, you + agrees), (short_asked, you), ("", you),
    ):  # fmt: skip
        if len(left) + len(middle) + len(right) + 6 <= width:
            break
    gap = min(7, max(3, width - len(left) - len(middle) - len(right) - 3))
    return f" {left}{middle}{' ' * gap}{right}"


def plain(value: float) -> str:
    """A share in three cells: ``.86``, ``1.0``."""
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.1f}"


def strip(desk: Desk) -> str:
    """``[A 4] [B 2] >C< [D -]``: a letter in the order shown, with its answer; ``x`` skipped, ``~`` being saved."""
    visit = desk.current
    if visit is None:
        return ""
    answers = desk.answers(visit)
    skipped = desk.skipped(visit)
    pieces = []
    for letter in visit.here:
        given = answers.get(letter)
        if given is not None:
            said = (given_text(given.rating) or given.text) + ("~" if given.state == "saving" else "")
        else:
            said = "x" if letter in skipped or "" in skipped else "-"
        if letter == visit.letter:
            pieces.append(f">{letter} {said}<" if said != "-" else f">{letter}<")
        else:
            pieces.append(f"[{letter} {said}]")
    return " ".join(pieces)


def given_text(rating: Rating) -> str:
    """What stands beside the letter of a response that was edited or criticised: ``ed``, ``2!``."""
    if rating.mode == EDIT.name:
        return "ed"
    if rating.mode == CRITIQUE.name:
        return f"{len(rating.flags)}!" if rating.flags else ("c" if rating.comment else "0!")
    return ""


def notes(desk: Desk, visit: Visit, letter: str) -> list[tuple[str, str]]:
    """What this person has said of a response beside its rating: (line, tone)."""
    lines = []
    given = desk.critique(visit, letter)
    if given is not None and given.flags:
        lines.append((f"your flags: {', '.join(given.flags)}", "accent"))
    if given is not None and given.comment:
        lines.append((f"your comment: {given.comment}", "accent"))
    edited = desk.edited(visit, letter)
    if edited is not None:
        lines.append((f"your better text:\n{edited.text}", "accent"))
    elif visit.edits.get(letter):
        lines.append((f"your draft, not saved (i goes on):\n{visit.edits[letter]}", "warn"))
    skip = desk.skipped(visit).get(letter) or desk.skipped(visit).get("")
    if skip is not None:
        lines.append((f"skipped{': ' if skip.reason else ''}{skip.reason}", "warn"))
    return lines


def rank_rows(desk: Desk, visit: Visit) -> list[RankRow]:
    """The list of a ranking: the order being typed, else the one on record."""
    placed = {letter: f"[{place}]" for place, tier in enumerate(visit.draft.tiers, 1) for letter in tier}
    answers = {} if placed else desk.answers(visit)
    rows = []
    for at, letter in enumerate(visit.here, 1):
        place, tone = placed.get(letter, ""), "accent"
        if letter in answers:
            place, tone = answers[letter].text + ("~" if answers[letter].state == "saving" else ""), "good"
        rows.append(RankRow(at, letter, place, tone, visit.response_text(letter), letter == visit.letter))
    return rows


def order_text(visit: Visit) -> str:
    """``3 > 1 = 2 > ``: the order typed so far, by the numbers on the screen."""
    numbers = {letter: number for number, letter in enumerate(visit.here, 1)}
    order = " > ".join(" = ".join(str(numbers[letter]) for letter in tier) for tier in visit.draft.tiers)
    return order + (" = " if visit.draft.tie else " > " if order and len(visit.draft.placed) < len(numbers) else "")


SHORT = {
    "pair": "h/l better   H/L much better   t tie   0 both bad",
    "edit": "i write a better one   o in $EDITOR",
}
"""The keys of a mode where their table is too long for a line, or has none."""


def keys_line(desk: Desk, width: int = 200) -> str:
    """The keys of the mode in use; flags show which are up."""
    mode, visit = desk.keys_of, desk.current
    if mode is RANK:
        count = len(visit.here) if visit is not None else PART
        return f"  1-{count} best first   = ties   backspace takes back   z reads one   enter saves"
    if mode is CRITIQUE:
        up = desk.flags(visit, desk.letter) if visit is not None else []
        shown = [f"[{n} {flag}]" if flag in up else f" {n} {flag} " for n, flag in enumerate(FLAGS, 1)]
        return "\n".join(" " + line for line in _packed(shown, width - 2))
    line = "   ".join(f"{key} {word}" for key, (_, word) in mode.keys.items())
    return "  " + (line if line and len(line) + 2 < width - 20 else SHORT.get(mode.name, line))


def mode_hint(desk: Desk) -> str:
    """In one line: the mode in use and its keys, for whoever has pressed a key of another one."""
    mode, visit = desk.keys_of, desk.current
    if desk.flagging:
        return f"the flags are open: 1-{len(FLAGS)} switch them, enter saves, esc leaves"
    keys = SHORT.get(mode.name) or "   ".join(f"{key} {word}" for key, (_, word) in mode.keys.items())
    if mode is RANK:
        keys = f"1-{len(visit.here) if visit is not None else PART} best first   = ties   enter saves"
    elif mode is CRITIQUE:
        keys = f"1-{len(FLAGS)} switch flags   enter saves"
    return f"{mode.title}: {keys}   m other modes"


def more_keys(desk: Desk) -> list[str]:
    """Keys beside those of the mode, the most needed first."""
    if desk.flagging:
        return ["enter saves the flags", "esc leaves"]
    if desk.mode is RANK:
        return ["x skip", "u undo", "c comment", "f flags", "i write a better one", "v reveal"]
    if desk.mode is CRITIQUE:
        return ["enter saves and goes on", "c a line", "x skip", "u undo", "v reveal"]
    return ["x skip", "u undo", "c comment", "f flags", "i write a better one", "v reveal", "enter next group"]


def _packed(pieces: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1]) + 1 + len(piece) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + piece
    return lines


def facts(response: Response | None) -> str:
    """What blindness hides of a response."""
    if response is None:
        return ""
    advantage = "" if response.advantage is None else f"   adv {short(response.advantage)}"
    return f"reward {number(response.reward)}{advantage}"


def effect(
    desk: Desk, visit: Visit, weight: float, reward_range: tuple[float, float], scale: str
) -> tuple[dict[str, float], dict[str, float]] | None:
    """Advantages without and with the ratings, by letter; None before the group is here or with no rating.

    :param scale: as ``advantage_scale``; :data:`PLAIN` gives the rewards themselves, where a value model turns them
        into an advantage for each token.
    """
    mine = desk.book.standing(visit.key)
    if visit.detail is None or not mine:
        return None
    responses = visit.detail.group.responses
    rewards = {r.letter: None if r.failed else r.reward for r in responses}
    failed = {r.letter for r in responses if r.failed}
    others = [r for r in standing(visit.detail.ratings) if r.who != desk.who]
    automatic = {letter: reward for letter, reward in rewards.items() if letter not in failed}
    with_ratings = rewards | rated_rewards(automatic, judge([*others, *mine]), weight, reward_range)
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
    ratings = [rating for rating in desk.book.standing(visit.key) if MODES[rating.mode].moves_rewards]
    newest = max(ratings, key=lambda rating: rating.time, default=None)
    if newest is None:
        return []
    use = uses.get(newest.id)
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


def act_text(act: Act) -> str:
    """``C=4``, ``B > C``, ``A > B = C``, ``C edited``, ``C wrong, format``: what was said, as its mode shows it."""
    if isinstance(act, SkipRecord):
        return f"skip {act.letter}".rstrip()
    letters = " ".join(act.values)
    mode = MODES.get(act.mode)
    if mode is PAIR:
        one, other = (act.order if set(act.order) == set(act.values) else list(act.values))[:2]
        if act.values[one] == act.values[other]:
            return f"{one} = {other} ({'tie' if act.values[one] else 'both bad'})"
        better, worse = (one, other) if act.values[one] > act.values[other] else (other, one)
        return f"{better} {'>>' if act.values[better] > 1 else '>'} {worse}"
    if mode is RANK:
        return " > ".join(" = ".join(tier) for tier in RANK.tiers(act.values))
    if mode is EDIT:
        return f"{letters} edited"
    if mode is CRITIQUE:
        said = ", ".join(visible(flag) for flag in act.flags)
        return f"{letters} {said or ('a comment' if act.comment else 'no flag')}"
    return " ".join(f"{k}={mode.show(v) if mode else f'{v:g}'}" for k, v in act.values.items())


def last_ratings(desk: Desk, uses: Mapping[str, RatingUse], count: int, *, trains: bool = True) -> list[str]:
    """What this person did last, the newest first; a group still blind goes by its place.

    :param trains: whether an update will use them; no file of responses has one.
    """
    lines = []
    for act in islice(desk.book.newest_first(), count):
        key = (act.branch, act.step, act.group)
        name = desk.book.name(key)
        here = desk.current
        if here is not None and here.key == key and not here.revealed and (not here.repeats or act.id in here.given):
            name = f"group {here.place}"
        if isinstance(act, SkipRecord):
            fate = visible(act.reason)
        else:
            use = uses.get(act.id)
            aside = act.mode in (EDIT.name, CRITIQUE.name)
            # One that asked again looks like any other: who knows the repeats answers them otherwise.
            fate = "" if aside or not trains else use.describe() if use and not act.repeats else "waits for an update"
            fate += f"   {visible(act.comment)}" if act.comment else ""
        if desk.book.state(act) == "saving":
            fate = "being saved"
        seconds = span(act.seconds) if isinstance(act, Rating) and act.seconds else ""
        lines.append(f" {name:<10} {act_text(act):<8} {seconds:<6} {fate}".rstrip())
    return lines
