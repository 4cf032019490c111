"""The text panes of the dashboard, as rows of pieces: parameters, last groups, the machine; and their short forms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from screens.charts import Row
from screens.live import Live
from screens.numbers import bar, percent, reward_text, short, size, span
from screens.safe import fit, visible
from sessions.hyperparameters import HYPERPARAMETERS, Value, knobs_of
from sessions.people import clients_words
from sessions.records import Change, GroupHead

_T = TypeVar("_T")
_SHOWN = {
    "grpo": (
        "learning_rate", "kl_coefficient", "clip_low", "clip_high", "temperature", "group_size", "prompts_per_step",
        "max_new_tokens", "minibatches", "epochs", "rating_gate",
    ),
    "ppo": (
        "learning_rate", "kl_coefficient", "clip_high", "epochs", "gae_lambda", "value_learning_rate", "clip_low",
        "minibatches", "stop_kl", "temperature", "group_size",
    ),
    "trpo": (
        "trust_region", "kl_coefficient", "cg_iterations", "damping", "baseline", "backtracks", "temperature",
        "group_size", "prompts_per_step", "max_new_tokens", "rating_gate",
    ),
}  # fmt: skip
"""The main knobs of each algorithm, the first ones where there is no room for all."""
_SHORTLY = {
    "grpo": (
        ("lr", "learning_rate"), ("kl", "kl_coefficient"), ("clip", "clip_high"), ("temp", "temperature"),
        ("G", "group_size"),
    ),
    "ppo": (
        ("lr", "learning_rate"), ("kl", "kl_coefficient"), ("clip", "clip_high"), ("lambda", "gae_lambda"),
        ("mu", "epochs"),
    ),
    "trpo": (
        ("delta", "trust_region"), ("kl", "kl_coefficient"), ("cg", "cg_iterations"), ("temp", "temperature"),
        ("G", "group_size"),
    ),
}  # fmt: skip


def _main(live: Live, table: Mapping[str, tuple[_T, ...]]) -> tuple[_T, ...]:
    """The row of the running algorithm."""
    algorithm = live.status.algorithm if live.status else ""
    return table.get(algorithm, table["grpo"])


def show_value(name: str, value: Value) -> str:
    """A value of a hyperparameter as people write it."""
    knob = knobs_of({name: value}).get(name)
    return knob.show(value) if knob else str(value)


def short_name(name: str) -> str:
    knob = HYPERPARAMETERS.get(name)
    return knob.symbol if knob and knob.symbol else name


def change_text(change: Change) -> str:
    """``lr 3e-6 -> 1e-6  @640  you``."""
    old, new = show_value(change.name, change.old), show_value(change.name, change.new)
    when = f"@{change.applied_step}" if change.applied_step else f"at the next {change.boundary}"
    return visible(f"{short_name(change.name)} {old} -> {new}  {when}  {change.who}")


def _together(changes: Iterable[Change]) -> list[str]:
    """A line for the changes of each command: the algorithm's where it is among them, and how many came with it."""
    groups: dict[str, list[Change]] = {}
    for change in changes:
        groups.setdefault(change.command or change.id, []).append(change)
    lines = []
    for group in groups.values():
        told = next((change for change in group if change.name == "algorithm"), group[0])
        lines.append(change_text(told) + (f"  +{len(group) - 1}" if len(group) > 1 else ""))
    return lines


def parameter_rows(live: Live, width: int, height: int) -> list[Row]:
    """The values that are changed most, what was changed, what waits for its boundary."""
    changes = live.applied_changes()
    pending = [change for change in live.changes.values() if change.status == "pending"]
    below: list[Row] = []
    most = 4 if height >= 12 else 2
    for label, some in (("changed", _together(changes)[:most]), ("waiting", _together(pending)[-2:])):
        for index, text in enumerate(some):
            below.append([(f" {label if not index else '':<8} ", "dim"), (text, "change")])
    if not changes and not pending:
        below.append([(" nothing changed since the start", "dim")])
    room = max(1, height - len(below) - 1)
    rows: list[Row] = []
    for name in [n for n in _main(live, _SHOWN) if n in live.values][:room]:
        value, start = live.values[name], live.start_values.get(name)
        moved = start is not None and value != start
        rows.append(
            [(f" {fit(name, 18)} ", ""), (show_value(name, value), "strong"), (" *" if moved else "", "change")]
        )
    if not rows:
        rows.append([(" the engine has not said its values yet", "dim")])
    return [*rows, [], *below][:height]


def group_row(head: GroupHead, width: int) -> Row:
    """``811.3  .50 .53  1 1 0 0 1 0 1 0``."""
    std, rewards = _spread(head)
    text = f" {head.name:>7}  {short(head.mean):>4} {std:>4}  "
    return [(text, ""), (fit(rewards, max(4, width - len(text) - 1)), "dim" if "dead" in head.flags else "strong")]


def _spread(head: GroupHead) -> tuple[str, str]:
    """The standard deviation of a group, and its rewards or what they come to."""
    if "dead" not in head.flags:
        return short(head.std), " ".join(map(reward_text, head.rewards))
    if head.mean is None:
        return short(head.std), "failed" if "failed" in head.flags else "dead"
    return "0", "dead"  # what is left of sums of equal parts, such as 3e-17, tells nothing


def no_group(live: Live) -> str:
    """Why the list of groups is empty."""
    return " warming up: groups come with RL" if live.warming else " no group has been scored yet"


def group_rows(live: Live, width: int, height: int) -> list[Row]:
    """The newest groups, the best and the worst response among them, how many groups were dead lately."""
    newest = list(reversed(live.heads.values()))
    if not newest:
        return [[(no_group(live), "dim")]]
    below = [[], *_extremes(newest[:16]), *_dead(live, width)]
    queue = waiting_text(live)
    if queue:
        below += [[], [(f" {queue}: r", "warn")]]
    room = max(1, height - len(below))
    return [*(group_row(head, width) for head in newest[:room]), *below][:height]


def _extremes(heads: list[GroupHead]) -> list[Row]:
    scored = [
        (reward, f"{head.name}{chr(ord('A') + i) if i < 26 else '?'}")
        for head in heads
        for i, reward in enumerate(head.rewards)
        if reward is not None
    ]
    if not scored:
        return []
    best, worst = max(scored), min(scored)
    return [
        [(" best  ", "dim"), (best[1], "good"), (f"  r {reward_text(best[0])}", "")],
        [(" worst ", "dim"), (worst[1], "bad"), (f"  r {reward_text(worst[0])}", "")],
    ]


def _dead(live: Live, width: int) -> list[Row]:
    series = live.series.get("groups/dead_fraction")
    if series is None or not series.values:
        return []
    last = series.values[-min(50, max(1, width - 4)) :]
    levels = ".,:;!"
    drawn = "".join(" " if v is None else levels[min(4, int(v * 5))] for v in last)
    return [
        [(f" dead groups, last {len(last)} steps: {percent(series.values[-1])}", "dim")],
        [(f" {drawn}", "warn")],
    ]


def waiting_text(live: Live) -> str:
    """``14 groups wait for your rating``."""
    count = len(live.waiting())
    if not count:
        return ""
    if live.connection == "replay":
        return f"{count} group{'s' if count != 1 else ''} without a rating"
    return f"{count} group{'s' if count != 1 else ''} wait{'s' if count == 1 else ''} for your rating"


_VALUE_METRICS = (
    ("explained variance", "value/explained_variance", "above 0, up to .8"),
    ("loss", "value/loss", "falls, then stays"),
    ("mean value", "value/mean", "near the mean reward"),
    ("clipped", "value/clip_fraction", "under .3"),
    ("grad norm", "value/grad_norm", "steady"),
)


def value_rows(live: Live, width: int, height: int) -> list[Row]:
    """The value model: its measures beside what they should be, and how long it still trains alone."""
    metrics = live.last_step.metrics if live.last_step else {}
    kind = show_value("value_model", live.values.get("value_model", ""))
    rows: list[Row] = [[(f" {kind}", "strong"), ("  predicts the return from every prefix", "dim")]]
    left = metrics.get("value/warmup_left")
    if left:
        steps = "step" if left == 1 else "steps"
        rows.append([(f" trains alone for {left:.0f} more {steps}; the policy stands still", "warn")])
    measured = [(label, metrics[name], healthy) for label, name, healthy in _VALUE_METRICS if name in metrics]
    if not measured:
        rows.append([(" not measured yet", "dim")])
    for label, value, healthy in measured:
        bad = label == "explained variance" and value is not None and value < 0 and not left
        rows.append([(f" {label:<18} ", ""), (f"{short(value):>5}", "warn" if bad else "strong")])
        if len(healthy) + 3 <= width - 26:
            rows[-1].append((f"   {healthy}", "dim"))
    return rows[:height]


def machine_rows(live: Live, width: int, height: int) -> list[Row]:
    """Load, memory, disk, where a step's time goes, who watches."""
    status = live.status
    if status is None:
        return [[(" no engine yet", "dim")]]
    if not status.pid:
        rows: list[Row] = [[(" load and disk are not recorded", "dim")], *_times(live, width), []]
        return [*rows, [(" checkpoint ", "dim"), (_checkpoint_age(live), "")]][:height]
    rows = [[(" device ", "dim"), (visible(status.device) or "unknown", "strong"), (f"   pid {status.pid}", "dim")]]
    if status.cpu_percent is not None:
        rows.append([(" cpu  ", "dim"), (f"{status.cpu_percent:.0f}%", "")])
    if status.memory_total:
        part = status.memory_bytes / status.memory_total
        text = f"{size(status.memory_bytes)} of {size(status.memory_total)}  [{bar(part, 10)}]"
        rows.append([(" ram  ", "dim"), (text, "warn" if part > 0.9 else "")])
    saved = live.checkpoints[-1].bytes if live.checkpoints else 0
    each = f"   checkpoint {size(saved)} each" if saved else ""
    rows.append([(" disk ", "dim"), (f"{size(status.disk_free)} free{each}", "")])
    times = len(rows)
    rows += _times(live, width)
    rows.append([])
    rows.append([(" checkpoint ", "dim"), (_checkpoint_age(live), "")])
    rows.append([(" clients    ", "dim"), (visible(", ".join(clients_words(status.clients, *live.you))) or "none", "")])
    if len(rows) > height:
        rows = [*rows[:times], *_times(live, width, least=0.02), *rows[-2:]]
        rows = [row for row in rows if row]
    if len(rows) > height and status.cpu_percent is not None:
        rows[0:2] = [[*rows[0], *rows[1]]]
    return rows[:height]


def _checkpoint_age(live: Live) -> str:
    if not live.checkpoints:
        return "none yet"
    newest = live.checkpoints[-1]
    return f"step {newest.step}, {span(live.clock() - newest.time)} ago"


def _times(live: Live, width: int, least: float = 0.0) -> list[Row]:
    """Where a step's time goes: the shares above ``least``."""
    metrics = live.last_step.metrics if live.last_step else {}
    whole = metrics.get("time/step")
    if not whole:
        return []
    rows: list[Row] = [[], [(f" step {short(whole)} s, of which", "dim")]]
    room = max(5, min(25, width - 22))
    for name in ("sampling", "scoring", "updating", "saving", "waiting"):
        part = (metrics.get(f"time/{name}") or 0.0) / whole
        if part > least or name in ("sampling", "updating"):
            rows.append([(f" {name:<9} ", ""), (bar(part, room), "bar"), (f" {100 * part:3.0f}%", "")])
    return rows


def last_group_line(live: Live, width: int) -> Row:
    """The dashboard's first line under the charts of a small terminal."""
    hint = "s samples"
    newest = next(reversed(live.heads.values()), None)
    if newest is None:
        return _hinted([(no_group(live), "dim")], hint, width)
    std, rewards = _spread(newest)
    row: Row = [(f" last group {newest.name}  mean {short(newest.mean)}  std {std}   ", "")]
    used = sum(len(text) for text, _ in row)
    row.append((fit(rewards, min(len(rewards), max(4, width - used - len(hint) - 3))), "strong"))
    return _hinted(row, hint, width)


def values_line(live: Live, width: int) -> Row:
    """The second: values, and what ``:`` on the charts means."""
    text = "  ".join(
        f"{label} {show_value(name, live.values[name])}" for label, name in _main(live, _SHORTLY) if name in live.values
    )
    row: Row = [(f" {text}", "")]
    changes = live.applied_changes()
    if changes:
        newest = changes[0]
        told = f" = your change ({short_name(newest.name)} @{newest.applied_step})"
        if len(text) + len(told) + 16 > width:
            told = f" your change @{newest.applied_step}"
        row += [("   ", ""), (":", "change"), (told, "dim")]
    return _hinted(row, "p params", width)


def _none_waits(live: Live) -> str:
    return " every group is rated" if live.connection == "replay" else " no group waits for your rating"


def waiting_line(live: Live, width: int) -> Row:
    """The third: what waits for the person."""
    text = waiting_text(live)
    return _hinted([(f" {text}", "warn")] if text else [(_none_waits(live), "dim")], "r rate", width)


def _hinted(row: Row, hint: str, width: int) -> Row:
    out: Row = []
    room = width - len(hint) - 2
    for text, role in row:
        text = fit(text, min(len(text), room))
        room -= len(text)
        out.append((text, role))
    return [*out, (" " * max(1, room + 1), ""), (hint, "dim")]
