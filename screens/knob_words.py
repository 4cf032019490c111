"""A hyperparameter in words: its range in a narrow column, and what ``?`` says of it."""

from __future__ import annotations

from collections.abc import Mapping

from sessions.hyperparameters import NONE, Hyperparameter, Value

_SIZES = ((10**6, "M"), (1000, "k"))


def bound(number: float) -> str:
    """A bound in few cells: ``131072`` is ``131k``, ``1e-06`` is ``1e-6``."""
    if number != int(number) or number < 10_000:
        text = f"{number:.6g}"
        return text.replace("e-0", "e-").replace("e+0", "e")
    for size, unit in _SIZES:
        if number >= size:
            return f"{number / size:.3g}{unit}"
    raise AssertionError(number)


def range_cell(knob: Hyperparameter, room: int) -> str:
    """What is allowed, in the longest form that fits: with the unit, without, ``0..131k``, ``3 choices``."""
    low, high = bound(knob.low) if knob.kind in ("int", "float") else "", ""
    if low:
        high = bound(knob.high)
        forms = [knob.range_text, f"{low} .. {high}", f"{low}..{high}"]
        if 0.99 < knob.high < 1:
            forms.append(f"{low}..<1")
        if knob.optional:
            forms = [knob.range_text, f"{NONE}|{low}..{high}", f"{NONE}..{high}"]
    elif knob.kind == "choice":
        forms = [knob.range_text, f"{len(knob.choices)} choices"]
    else:
        forms = [knob.range_text, "3 choices"]
    return next((form for form in forms if len(form) <= room), forms[-1])


def knob_lines(
    knob: Hyperparameter, values: Mapping[str, Value], start: Value | None = None, algorithm: str = ""
) -> list[str]:
    """What a knob means, its values, when a change applies, who reads it, and what to set it to.

    :param values: of all knobs, in force.
    :param start: what the session started with.
    :param algorithm: the running one.
    """
    symbol = f" ({knob.symbol})" if knob.symbol else ""
    now = f"now {knob.show(values[knob.name])}   " if knob.name in values else ""
    began = f"started with {knob.show(start)}   " if start is not None else ""
    lines = [
        f"{knob.name}{symbol}: {knob.help}",
        *([f"healthy: {knob.healthy}"] if knob.healthy else []),
        f"{now}{began}default {default_text(knob)}",
        f"allowed {knob.range_text}   a change applies at the next {knob.boundary}{_later(knob)}",
        f"read by {readers_text(knob) or 'every algorithm'}",
    ]
    if algorithm and not knob.used_by(algorithm, values or None):
        lines[-1] += f"; {algorithm}, which runs, does not read it now"
    return lines


def default_text(knob: Hyperparameter) -> str:
    """``0.04, 0.05 with algorithm ppo, 0.05 with algorithm trpo``."""
    text = knob.show(knob.default)
    if knob.depends is None:
        return text
    other, table = knob.depends
    return text + "".join(f", {knob.show(value)} with {other} {when}" for when, value in table.items())


def _later(knob: Hyperparameter) -> str:
    return f" ({knob.later[2]} with {knob.later[0]} {knob.later[1]})" if knob.later else ""


def readers_text(knob: Hyperparameter) -> str:
    """``ppo, trpo with baseline value``; empty for every algorithm."""
    return ", ".join(
        f"{name} with {knob.unless[1]} {knob.unless[2]}" if knob.unless and knob.unless[0] == name else name
        for name in knob.algorithms
    )
