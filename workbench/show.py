"""Answers to queries as people read them: a response's full text, a group, tables of heads and points."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec

from screens.branch_words import branch_table
from screens.evaluation_lines import evaluation_words
from screens.probe_lines import probe_words
from screens.rose_lines import rose_words
from sessions.branches import BranchInfo, Probe
from sessions.commands import (
    Command,
    QueryBranches,
    QueryEvaluation,
    QueryEvents,
    QueryGroup,
    QueryGroups,
    QueryPlan,
    QueryProbes,
    QueryRatings,
    QueryResponse,
    QueryRewardModel,
    QueryRose,
    QuerySeries,
    QueryWatches,
)
from sessions.evaluations import EvaluationView
from sessions.plans import Plan
from sessions.records import GroupHead, Rating, Response, SeriesData
from sessions.reward_models import RewardModelState, reward_model_lines
from sessions.rose import Roses
from sessions.watch_book import WatchState, state_lines
from sessions.wire import AnyEvent, GroupDetail, describe
from workbench.output import table


def readable(command: Command, data: Any) -> str:
    """The data of a query as text; data of a newer engine that cannot be read as such is shown as it is."""
    try:
        match command:
            case QueryGroups():
                return _heads(msgspec.convert(data, list[GroupHead]))
            case QueryGroup():
                return _group(msgspec.convert(data, GroupDetail))
            case QueryResponse():
                return _response(msgspec.convert(data, Response))
            case QuerySeries():
                return _series(msgspec.convert(data, list[SeriesData]))
            case QueryEvents():
                return _events(msgspec.convert(data, list[AnyEvent]))
            case QueryPlan():
                return msgspec.convert(data, Plan).describe()
            case QueryBranches():
                return table(branch_table(msgspec.convert(data, list[BranchInfo]), time.time()), frozenset({2, 3}))
            case QueryProbes():
                return "\n".join(probe_words(msgspec.convert(data, list[Probe])))
            case QueryRewardModel():
                return "\n".join(reward_model_lines(msgspec.convert(data, RewardModelState | None)))
            case QueryRatings():
                return _ratings(msgspec.convert(data, list[Rating]))
            case QueryRose():
                return "\n".join(rose_words(msgspec.convert(data, Roses)))
            case QueryEvaluation():
                return "\n".join(evaluation_words(msgspec.convert(data, EvaluationView)))
            case QueryWatches():
                return "\n".join(state_lines(msgspec.convert(data, list[WatchState])))
    except msgspec.ValidationError:
        return json.dumps(data, indent=2, ensure_ascii=False)
    return _fields(data)


def number(value: float | None, form: str = ".3f") -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:{form}}"


def _fields(data: Any) -> str:
    """A record, one field a line; times as clock times."""
    if not isinstance(data, dict):
        return json.dumps(data, indent=2, ensure_ascii=False)
    lines = []
    for name, value in data.items():
        if name in ("time", "checkpoint_time") and isinstance(value, int | float) and value > 0:
            value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        if name in ("memory_bytes", "memory_total", "disk_free"):
            value = f"{value / 2**30:.1f} GiB"
        if isinstance(value, float):
            value = f"{value:.4g}"
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append([f"{name}:", shown])
    return table(lines) if lines else ""


def _heads(heads: list[GroupHead]) -> str:
    rows = [["group", "status", "mean", "std", "flags", "ratings", "prompt"]]
    for head in heads:
        ratings = " ".join(f"{letter}={value}" for letter, value in head.ratings.items())
        prompt = " ".join(head.prompt.split())
        rows.append(
            [head.name, head.status, number(head.mean), number(head.std), ",".join(head.flags), ratings, prompt]
        )
    return table(rows, frozenset({2, 3}))


def _group(detail: GroupDetail) -> str:
    group, head = detail.group, detail.head
    lines = [
        f"group {group.name} of branch {group.branch}: {group.status}, temperature {group.temperature:g}",
        f"mean {number(head.mean)}, std {number(head.std)}" + (f", {', '.join(head.flags)}" if head.flags else ""),
        "",
        "prompt:",
        group.prompt,
    ]
    if group.answer:
        lines += ["", f"answer: {group.answer}"]
    for response in group.responses:
        lines += ["", f"--- {group.name}{response.letter} ---", _response(response)]
    uses = {use.rating: use for use in detail.uses}
    for rating in detail.ratings:
        comment = f" ({rating.comment})" if rating.comment else ""
        fate = rating.fate(uses.get(rating.id))
        lines += ["", f"{rating.who} rated {rating.said()} ({rating.mode}){comment}: {fate}  [{rating.id}]"]
    return "\n".join(lines)


def _response(response: Response) -> str:
    parts = [f"reward {number(response.reward)}"]
    if response.rated_reward is not None:
        parts.append(f"with ratings {response.rated_reward:.3f}")
    parts.append(f"advantage {number(response.advantage)}")
    parts.append(f"{response.length} tokens" + ("" if response.ended else ", cut"))
    parts += [f"{name} {number(value)}" for name, value in response.components.items()]
    parts += [f"failed: {response.failed}"] if response.failed else []
    return f"{', '.join(parts)}\n{response.text}"


def _ratings(ratings: list[Rating]) -> str:
    rows = [["time", "who", "group", "mode", "said", "id"]]
    for rating in ratings:
        when = time.strftime("%m-%d %H:%M:%S", time.localtime(rating.time))
        said = rating.said() + (" (taken back)" if rating.retracted else "") + (" (asked again)" * bool(rating.repeats))
        rows.append([when, rating.who, f"{rating.step}.{rating.group}", rating.mode, said, rating.id])
    return table(rows)


def _series(series: list[SeriesData]) -> str:
    blocks = []
    for data in series:
        rows = [["step", data.name]] + [[str(s), number(v, ".6g")] for s, v in zip(data.steps, data.values)]
        blocks.append(table(rows, frozenset({0, 1})))
    return "\n\n".join(blocks)


def _events(events: list[AnyEvent]) -> str:
    rows = []
    for event in reversed(events):
        kind, line = describe(event)
        rows.append([str(event.seq), time.strftime("%H:%M:%S", time.localtime(event.time)), kind, line])
    return table(rows, frozenset({0})) if rows else ""
