"""What is staged, in force and changed, as rows of the parameters screen and lines of its effect pane."""

from __future__ import annotations

from collections.abc import Mapping

from screens.knob_words import range_cell
from screens.staging import Staged, Staging
from screens.switching import following_words, steered, switch_lines
from screens.widgets.line_table import Column, Row
from sessions.hyperparameters import Hyperparameter, Value, hyperparameter, knobs_of
from sessions.records import Change

COLUMNS = (
    Column("name", 24, narrow=23),
    Column("now", 14, narrow=12),
    Column("staged", 16, narrow=12),
    Column("range", 0),
    Column("applies", 10, narrow=7),
    Column("changed", 20, narrow=8),
)
RANGE = 3
"""Place of the range among them: its room decides how it is written."""


def knob_rows(
    staging: Staging, algorithm: str, room: int = 80, last: int = 20, *, all_of_them: bool = True
) -> list[Row]:
    """The table: the knobs that are used, then the others, dim and with ``!`` beside the value.

    :param algorithm: the running one; a staged one counts instead.
    :param room: cells of the column with the range.
    :param last: cells of the column with the last change: who made it is left out where only half of it would fit.
    :param all_of_them: False leaves out what is not used, unless it is staged.
    """
    reads = staging.reads(algorithm)
    follows = staging.following()
    changes: dict[str, Change] = {c.name: c for c in staging.changes() if c.status != "superseded"}
    rows = [
        _row(staging, knob, name in reads, changes.get(name), follows.get(name), room, last)
        for name, knob in knobs_of(staging.values()).items()
    ]
    shown = [row for row in rows if all_of_them or row.key in reads or row.key in staging.staged]
    return sorted(shown, key=lambda row: row.key not in reads)


def _row(
    staging: Staging,
    knob: Hyperparameter,
    is_used: bool,
    change: Change | None,
    follows: Value | None,
    room: int,
    last: int,
) -> Row:
    value = staging.values().get(knob.name, knob.default)
    staged = f"{knob.show(staging.staged[knob.name].value)} *" if knob.name in staging.staged else ""
    if not staged and follows is not None:
        staged = f"{knob.show(follows)} +"
    if not staged and change is not None and change.status == "pending":
        staged = f"-> {knob.show(change.new)}"
    changed = "@0"
    if change is not None:
        when = f"@{change.applied_step}" if change.status == "applied" else "due"
        changed = f"{when} {change.who}" if len(when) + 1 + len(change.who) <= last else when
    cells = (
        knob.name, knob.show(value) + ("" if is_used else " !"), staged, range_cell(knob, room),
        knob.boundary_under(staging.values()), changed,
    )  # fmt: skip
    return Row(knob.name, cells, "accent" if staged else "" if is_used else "dim")


def effect_lines(staging: Staging) -> list[str]:
    """What applying would do: a line for each staged value, what follows from it, what another algorithm means."""
    due = staging.due()
    switches = "algorithm" in staging.staged
    lines = []
    for name, staged in staging.staged.items():
        knob = hyperparameter(name)
        boundary = "rollout" if switches else knob.boundary_under(due)
        old = due[name] if steered(name, due) else staged.expect
        lines.append(f"{name} {knob.show(old)} -> {knob.show(staged.value)}  next {boundary}{_note(name, staged, due)}")
    words = following_words(due, {name: staged.value for name, staged in staging.staged.items()})
    if words:
        lines.append(f"+ follows by itself, at the same moment: {words}")
    return lines + switch_lines(due, staging.ahead())


def _note(name: str, staged: Staged, due: Mapping[str, Value]) -> str:
    if name == "learning_rate":
        return ", keeps the optimizer state"
    numbers = (staged.expect, staged.value)
    if name in ("group_size", "prompts_per_step", "max_new_tokens"):
        old, new = (float(number) for number in numbers)
        return f", up to {new / old:.2g} x the tokens of a step" if old else ""
    if steered(name, due):
        return ", and kl_target moves it on from there"
    if name == "kl_coefficient" and staged.value == 0:
        return ", measured every reference_every steps only"
    if name == "rating_gate" and staged.value != "async":
        return ", a step then waits for your ratings"
    return ""


def describe_change(change: Change) -> str:
    """One line of the history: ``3e-6 -> 1e-6  applied @640  you``."""
    knob = hyperparameter(change.name)
    if change.status == "applied":
        when = f"applied @{change.applied_step}"
    elif change.status == "pending":
        when = f"due at the next {change.boundary}"
    else:
        when = "superseded before it applied"
    return f"{change.name} {knob.show(change.old)} -> {knob.show(change.new)}   {when}   {change.who}"
