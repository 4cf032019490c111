"""Events as rows, and the words of a filter over them."""

from __future__ import annotations

from collections.abc import Callable

from screens.numbers import clock_time
from screens.sample_filter import step_range
from screens.widgets.line_table import Column, Row
from sessions.wire import AlarmRaised, AnyEvent, Changed, describe

COLUMNS = (
    Column("time", 8),
    Column("step", 6, right=True),
    Column("kind", 11),
    Column("what", 0),
)
_TONES = {"alarm": "warn", "error": "bad", "change": "accent", "rating": "good", "step": "dim"}


def is_listed(event: AnyEvent) -> bool:
    """Whether the list shows it: not the groups of every step, which the line of the step stands for."""
    return describe(event)[0] != "groups"


def event_key(event: AnyEvent) -> str:
    """Its number; an event that is not kept goes by its time."""
    return str(event.seq) if event.seq else f"at {event.time!r}"


def event_row(event: AnyEvent) -> Row:
    """One event as its line in the list."""
    kind, text = describe(event)
    tone = _TONES.get(kind, "")
    if isinstance(event, AlarmRaised):
        tone = "dim" if event.alarm.acknowledged else "bad" if event.alarm.level == "error" else "warn"
    if isinstance(event, Changed) and event.change.status == "superseded":
        tone = "dim"
    return Row(event_key(event), (clock_time(event.time), str(event.step or ""), kind, text), tone)


def event_filter(text: str) -> Callable[[Row], bool]:
    """``kind:alarm step:800.. reward``: all words must hold; ``-`` before one turns it round.

    :raises InvalidValue: for a range that cannot be read.
    """
    tests = [_word(word) for word in text.casefold().split()]
    return lambda row: all(test(row) for test in tests)


def _word(word: str) -> Callable[[Row], bool]:
    if word.startswith("-") and len(word) > 1:
        inner = _word(word[1:])
        return lambda row: not inner(row)
    kind, colon, value = word.partition(":")
    if colon and kind == "kind":
        return lambda row: row.cells[2].startswith(value)
    if colon and kind == "step":
        first, last = step_range(value)
        return lambda row: first <= int(row.cells[1] or 0) <= last
    return lambda row: word in f"{row.cells[2]} {row.cells[3]}".casefold()
