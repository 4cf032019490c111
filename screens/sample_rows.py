"""Groups and responses as rows and lines: what the samples screen draws, without a screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from screens.preview import short
from screens.safe import tail
from screens.value_lines import value_lines
from screens.widgets.line_table import Column, Row
from screens.widgets.side_by_side import Side
from sessions.records import Group, GroupHead, Rating, RatingUse, Response, letters
from sessions.wire import GroupDetail, Growing

SAMPLING = "sampling"
"""Key of the row of the group that is being sampled."""

GROUP_COLUMNS = (
    Column("step.grp", 9, narrow=8),
    Column("mean", 6, right=True, narrow=5),
    Column("std", 5, right=True, narrow=4),
    Column("flags", 0),
)
RESPONSE_COLUMNS = (
    Column("", 3, narrow=2),
    Column("reward", 7, right=True),
    Column("adv", 6, right=True),
    Column("len", 5, right=True),
    Column("kl", 6, right=True, narrow=5),
    Column("end", 0),
)
GROWING_COLUMNS = (Column("", 3, narrow=2), Column("", 3), Column("text so far", 0))
_SHORT_FLAGS = {"failed": "failed", "dead": "dead", "truncated": "trunc", "high_kl": "kl"}
"""In the order in which they are said: a narrow list shows only the first."""


_LEFT_OUT = {"discarded": "dropped", "replaced": "replaced"}


def number(value: float | None) -> str:
    """``.53`` or ``-1.25``; ``-`` for none."""
    if value is None:
        return "-"
    text = f"{value:.2f}"
    text = "0.00" if text == "-0.00" else text
    return text.removeprefix("0") if text.startswith("0.") else text.replace("-0.", "-.")


def extremes(heads: Iterable[GroupHead], window: int = 200) -> tuple[str, str]:
    """Names of the groups with the highest and the lowest mean among the newest that are not dead; ties: the newer."""
    alive = [h for h in heads if h.mean is not None and "dead" not in h.flags and h.status != "discarded"][:window]
    if len(alive) < 2:
        return "", ""
    best = max(alive, key=lambda h: (h.mean or 0.0, h.step, -h.number))
    worst = min(alive, key=lambda h: (h.mean or 0.0, -h.step, h.number))
    return (best.name, worst.name) if best.mean != worst.mean else ("", "")


def group_key(head: GroupHead) -> str:
    return f"{head.branch}/{head.name}"


def flags_text(head: GroupHead, highest: str = "", lowest: str = "") -> str:
    """``dead``, ``trunc``, ``r3`` (three responses rated), ``kl``, ``hi``, ``lo``."""
    words = [word for flag, word in _SHORT_FLAGS.items() if flag in head.flags]
    if head.mean is None and "failed" in words and "dead" in words:
        words.remove("dead")  # no reward is known, so nothing says that they are equal
    if head.ratings:
        words.insert(0, f"r{len(head.ratings)}")
    if head.status in _LEFT_OUT:
        words.append(_LEFT_OUT[head.status])
    words += ["hi"] if head.name == highest else []
    words += ["lo"] if head.name == lowest else []
    return " ".join(words)


def group_rows(heads: Iterable[GroupHead], growing: Growing | None, active_branch: str) -> list[Row]:
    """The newest first; what is being sampled on top."""
    heads = list(heads)
    highest, lowest = extremes(heads)
    rows = []
    if growing is not None:
        done = sum(growing.ended)
        rows.append(Row(SAMPLING, ("sampling", "", "", f"{done}/{len(growing.ended)}"), "accent"))
    for head in heads:
        name = head.name if head.branch == active_branch else f"{head.branch}/{head.name}"
        flags = flags_text(head, highest, lowest)
        tone = "dim" if "dead" in head.flags or head.status == "discarded" else "warn" if "failed" in head.flags else ""
        rows.append(Row(group_key(head), (name, number(head.mean), number(head.std), flags), tone))
    return rows


def end_text(response: Response, rating: str = "") -> str:
    """How a response ended, and what a person said of it."""
    words = ["eos" if response.ended else "TRUNC"]
    if response.failed:
        words.append("FAILED")
    if rating:
        words.append(f"r{rating}")
    return " ".join(words)


def response_rows(group: Group, ratings: Mapping[str, str]) -> list[Row]:
    """A group's responses with their numbers."""
    rows = []
    for response in group.responses:
        reward = response.reward if response.rated_reward is None else response.rated_reward
        advantage = "-" if response.advantage is None else short(response.advantage)
        cells = (
            response.letter, number(reward), advantage, str(response.length), number(response.kl),
            end_text(response, ratings.get(response.letter, "")),
        )  # fmt: skip
        tone = "bad" if response.failed else "warn" if not response.ended else ""
        rows.append(Row(response.letter, cells, tone))
    return rows


def growing_rows(growing: Growing, width: int) -> list[Row]:
    """The responses that are being sampled, each with the end of its text in ``width`` cells."""
    return [
        Row(
            letters(i),
            (letters(i), "eos" if ended else "...", tail(text, width)),
            "" if ended else "accent",
        )
        for i, (text, ended) in enumerate(zip(growing.texts, growing.ended, strict=True))
    ]


def reward_line(response: Response, rating: str) -> str:
    """``reward: accuracy 0.0  format 1.0  human -``."""
    parts = [
        f"{name} {'-' if value is None else f'{value:.4g}'}" for name, value in sorted(response.components.items())
    ]
    if response.rated_reward is not None and response.rated_reward != response.reward:
        parts.append(f"automatic {number(response.reward)}")
    parts.append(f"human {rating or '-'}")
    return "reward: " + "  ".join(parts)


def response_text(detail: GroupDetail, letter: str, width: int = 100) -> list[tuple[str, str]]:
    """One response in full, as (paragraph, tone): its reward in parts, its text, what the value model said, and who
    said what of it.

    :param width: cells of a line, for what stands in columns.
    """
    response = next((r for r in detail.group.responses if r.letter == letter), None)
    if response is None:
        return []
    lines = [(reward_line(response, detail.head.ratings.get(letter, "")), "dim")]
    if response.failed:
        lines.append((f"failed: {response.failed}", "bad"))
    lines.append((response.text if response.text else "(an empty response)", "" if response.text else "dim"))
    values = value_lines(response, width)
    if values:
        lines += [("", ""), *((line, "dim" if i == 0 else "") for i, line in enumerate(values))]
    if detail.group.answer:
        lines += [("", ""), (f"answer: {detail.group.answer}", "dim")]
    uses = {use.rating: use for use in detail.uses}
    lines += [(line, "accent") for line in rating_lines(detail.ratings, uses, letter)]
    return lines


def response_side(detail: GroupDetail, letter: str) -> Side | None:
    """A response as it is read against another one: its numbers on the edges, its reward in parts above its text."""
    response = next((r for r in detail.group.responses if r.letter == letter), None)
    if response is None:
        return None
    rating = detail.head.ratings.get(letter, "")
    reward = response.reward if response.rated_reward is None else response.rated_reward
    advantage = "" if response.advantage is None else f"   adv {short(response.advantage)}"
    above = [(reward_line(response, rating), "dim")]
    if response.failed:
        above.append((f"failed: {response.failed}", "bad"))
    if not response.text:
        above.append(("(an empty response)", "dim"))
    return Side(
        title=f"{letter}   reward {number(reward)}{advantage}   {end_text(response, rating)}",
        text=response.text,
        label=f"{response.length} tok",
        above=tuple(above),
    )


def rating_lines(ratings: Iterable[Rating], uses: Mapping[str, RatingUse], letter: str) -> list[str]:
    """Every rating of a response, with what became of it."""
    lines = []
    for rating in ratings:
        if letter in rating.values:
            use = uses.get(rating.id)
            fate = use.describe() if use else "waits for an update"
            if rating.retracted:
                fate = f"taken back ({fate})" if use else "taken back"
            comment = f"  {rating.comment}" if rating.comment else ""
            lines.append(f"{rating.who} rated {rating.values[letter]:g} ({rating.mode}): {fate}{comment}")
    return lines
