"""Branches in words: where one comes from, what differs, what a key would do to them. No Textual in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from screens.numbers import percent, short, size, span
from sessions.branches import BranchInfo, aside_name, differences, in_tree_order
from sessions.hyperparameters import HYPERPARAMETERS, Value, knobs_of

REWARD = "reward/mean"


def value_text(name: str, value: Value | None) -> str:
    """A hyperparameter's value as people write it; ``-`` for none."""
    if value is None:
        return "-"
    knob = knobs_of({name: value}).get(name)
    return knob.show(value) if knob else str(value)


def difference_words(before: Mapping[str, Value], after: Mapping[str, Value]) -> list[str]:
    """``learning_rate 1e-6 -> 5e-7``, one line each, in the order of the hyperparameters' table."""
    order = {name: place for place, name in enumerate(HYPERPARAMETERS)}
    found = differences(before, after)
    return [
        f"{name} {value_text(name, found[name][0])} -> {value_text(name, found[name][1])}"
        for name in sorted(found, key=lambda name: (order.get(name, len(order)), name))
    ]


def steps_words(first: int, last: int) -> str:
    """``steps 641 to 812``, ``step 641``, or ``no step``."""
    if last < first:
        return "no step"
    return f"step {first}" if first == last else f"steps {first} to {last}"


def origin_words(info: BranchInfo, now: float) -> str:
    """``forked from main at step 640, 12 min ago: why``."""
    branch = info.branch
    if not branch.parent:
        return f"{branch.name} is where the session began"
    how = "left behind by" if branch.abandoned else "forked from"
    ago = f", {span(now - branch.time)} ago" if branch.time else ""
    why = f": {branch.why}" if branch.why else ""
    return f"{how} {branch.parent} at step {branch.step}{ago}{why}"


def standing_words(info: BranchInfo) -> str:
    """How it stands at its newest step: ``172 steps of its own, to 812; reward .412; held-out 61% @800``."""
    parts = [f"{info.steps} step{'' if info.steps == 1 else 's'} of its own, to {info.tip}"]
    if REWARD in info.metrics:
        parts.append(f"reward {short(info.metrics[REWARD])}")
    if info.evaluated is not None:
        text = f"held-out {percent(info.evaluated[1])} @{info.evaluated[0]}"
        parts.append(text + (f", best {percent(info.best[1])} @{info.best[0]}" if info.best is not None else ""))
    return "; ".join(parts)


def about_branch(info: BranchInfo, now: float) -> list[tuple[str, str]]:
    """Where a branch comes from, how it stands, and what differs from its parent: (text, tone)."""
    lines = [(origin_words(info, now), ""), (standing_words(info), "dim")]
    if info.branch.parent:
        changed = difference_words(info.begun_with, info.values)
        parent = f"{info.branch.parent} at step {info.branch.step}"
        if not info.steps:
            lines.append(("no step has been trained on it yet", "dim"))
        elif not changed:
            lines.append((f"every hyperparameter is as on {parent}", "dim"))
        else:
            lines.append((f"changed since {parent}:", "dim"))
            lines += [(f"  {text}", "accent") for text in changed]
        if info.branch.seed is not None:
            lines.append((f"seed {info.branch.seed}: its prompts come in another order, with other noise", "dim"))
    return lines


TABLE = ("branch", "from", "steps", "tip", "reward", "held-out", "best", "checkpoints", "size", "age", "what")


def branch_table(infos: Sequence[BranchInfo], now: float) -> list[list[str]]:
    """Every branch in a line, after its parent and further in, under a line of titles."""
    by_name = {info.branch.name: info for info in infos}
    rows = [list(TABLE)]
    for depth, branch in in_tree_order([info.branch for info in infos]):
        info = by_name[branch.name]
        what = (["active"] if info.active else []) + (["abandoned"] if branch.abandoned else [])
        what += [branch.why] if branch.why else []
        rows.append(
            [
                "  " * depth + branch.name,
                f"{branch.parent} @{branch.step}" if branch.parent else "-",
                str(info.steps),
                str(info.tip),
                short(info.metrics.get(REWARD)),
                percent(info.evaluated[1]) if info.evaluated is not None else "-",
                f"{percent(info.best[1])} @{info.best[0]}" if info.best is not None else "-",
                str(len(info.checkpoints)),
                size(sum(point.bytes for point in info.checkpoints)),
                span(now - info.time) if info.time else "-",
                ", ".join(what),
            ]
        )
    return rows


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, their cells under each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


MANY_STEPS = 200
"""Computing so many steps again is worth a word of how long it takes, and of where it need not be done."""


def checkpoint_before(info: BranchInfo, step: int, infos: Mapping[str, BranchInfo]) -> int:
    """The newest checkpoint up to a step of a branch's line; 0, where training began, if there is none."""
    seen: set[str] = set()
    here: BranchInfo | None = info
    while here is not None and here.branch.name not in seen:
        saved = [point.step for point in here.checkpoints if point.step <= step]
        if saved:
            return max(saved)
        seen.add(here.branch.name)
        step, here = min(step, here.branch.step), infos.get(here.branch.parent)
    return 0


def rewind_words(
    info: BranchInfo, step: int, infos: Mapping[str, BranchInfo], seconds: float | None = None
) -> list[str]:
    """What a rewind of the active branch would do.

    :param infos: every branch, by name.
    :param seconds: that a step takes.
    """
    name = info.branch.name
    before = checkpoint_before(info, step, infos)
    lines = ["The present state is checkpointed first."]
    if step < info.tip:
        aside = aside_name(name, set(infos))
        own = max(step, info.branch.step)
        if own < info.tip:
            lines.append(f"S{steps_words(own + 1, info.tip)[1:]} stay on {aside}, and so does what is made meanwhile.")
    if before < step:
        lines.append(f"The newest checkpoint before it is of step {before}: {steps_words(before + 1, step)} must be")
        takes = f", which takes about {span((step - before) * seconds)}" if seconds else ""
        lines.append(f"computed again from the records{takes}.")
        if step - before >= MANY_STEPS:
            lines.append(f"A rewind to step {before} itself takes no time; nothing trains until it is there.")
    lines.append(f"{name} then goes on from step {step}.")
    return lines


def switch_words(info: BranchInfo, active: str) -> list[str]:
    """What a switch to another branch would do."""
    name = info.branch.name
    lines = [
        "The present state is checkpointed first.",
        f"{active} stays as it is; {name} goes on from step {info.tip}.",
    ]
    if info.branch.abandoned:
        lines.append(f"It was left behind by {info.branch.parent}: from then on it is a branch like any other.")
    return lines
