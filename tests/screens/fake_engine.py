"""A scripted engine: the real server on a real socket, with made-up data behind it.

It numbers and keeps its events as a real one does, answers every query from what it has, and remembers the commands
it was sent.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import time
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import msgspec

from sessions import commands as c
from sessions.branches import Branch, BranchInfo, Probe
from sessions.evaluations import EvaluationView
from sessions.folders import EngineInfo, ExitInfo, SessionFolder
from sessions.hyperparameters import defaults, hyperparameter, switched
from sessions.judging import standing
from sessions.modes import rating_mode, replaces
from sessions.plans import Plan, PlanPart
from sessions.presets import preset
from sessions.records import (
    WARM_UP,
    Alarm,
    Change,
    Checkpoint,
    Group,
    GroupHead,
    Rating,
    RatingFate,
    RatingUse,
    Response,
    SessionSettings,
    SkipRecord,
    State,
    Status,
    StepRecord,
    TaskInfo,
    TrustRegionStep,
    Try,
    head_of,
    letters,
    parse_response_name,
)
from sessions.rose import Roses
from sessions.series import Series
from sessions.server import Server
from sessions.wire import (
    PROTOCOL,
    AlarmRaised,
    Answer,
    AnyEvent,
    Beat,
    Changed,
    CheckpointSaved,
    GroupDetail,
    GroupsChanged,
    GroupsScored,
    Growing,
    Noted,
    RatingRetracted,
    RatingSaved,
    RatingUsed,
    Skipped,
    Snapshot,
    StepDone,
    Welcome,
    encode_json,
)

START = 1_700_000_000.0
"""The fake engine's clock starts here, so that what it says is the same in every run."""

TICK = 1e-3
"""Seconds between what people do: no two records have the same time."""


class FakeEngine:
    """A session with an engine that does what a test says.

    :ivar received: every command, in order.
    :ivar refuse: tag of a command -> the reason with which it is rejected.
    :ivar rated_text: what a rating is answered with.
    :ivar snapshot_ratings: how many of the newest ratings a snapshot has; ``snapshot_events``: and events.
    :ivar other_text: what a command is answered with that it only records.
    """

    def __init__(self, home: Path, name: str = "gsm8k-grpo", *, steps: int = 0, clock: float = START) -> None:
        self.folder = SessionFolder(home / "sessions" / name)
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.folder.write_settings(SessionSettings(name=name, steps=2000))
        self.name, self.now = name, clock
        self.received: list[c.Command] = []
        self.refuse: dict[str, str] = {}
        self.rated_text = "saved"
        self.other_text = "done"
        self.snapshot_ratings = self.snapshot_events = 500
        self.values = defaults()
        self.start_values = dict(self.values)
        self.events: list[AnyEvent] = []
        self.series: dict[str, Series] = {}
        self.groups: dict[tuple[int, int], Group] = {}
        self.ratings: dict[str, Rating] = {}
        self.skips: dict[str, SkipRecord] = {}
        self.changes: dict[str, Change] = {}
        self.alarms: dict[str, Alarm] = {}
        self.watches: list[Any] = []
        self.checkpoints: list[Checkpoint] = []
        self.last_step: StepRecord | None = None
        self.infos: dict[str, BranchInfo] = {}
        self.answers: dict[str, list[Probe]] = {}
        self.roses: Roses | None = None
        self.evaluation: EvaluationView | None = None
        self.others: dict[str, dict[str, Series]] = {}
        self.status = Status(
            time=self.now, session=name, branch="main", state="RUN", phase="sampling", algorithm="grpo", steps=2000,
            done=41, total=64, elapsed=7900.0, left=11520.0, tokens_per_second=1900.0, pid=4121, device="cpu",
            cpu_percent=38.0, memory_bytes=22 * 2**30, memory_total=128 * 2**30, disk_free=61 * 2**30,
        )  # fmt: skip
        self.server = Server(str(home / "s"), self)
        self._lock = -1
        for _ in range(steps):
            self.finish_step()

    # ---------------------------------------------------------------------------------------------- life

    async def __aenter__(self) -> FakeEngine:
        self._lock = self.folder.lock()
        await self.server.start()
        self.folder.write_engine(EngineInfo(pid=os.getpid(), socket=self.server.path, started=self.now, version="0"))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._lock >= 0:
            await self.leave()

    async def leave(self, code: int | None = None, cause: str = "stopped") -> None:
        """Go, with ``code`` in exit.json; without one, as if killed before anybody could write it."""
        os.close(self._lock)
        self._lock = -1
        if code is not None:
            self.fail(code, cause)
        await self.server.close()

    def fail(self, code: int, cause: str) -> None:
        """What the supervisor writes of an engine that has ended."""
        self.folder.write_exit(
            ExitInfo(
                pid=os.getpid(), code=code, signal="", out_of_memory=False, peak_memory_bytes=0,
                started=START, ended=self.now, cause=cause,
            )
        )  # fmt: skip

    async def come_back(self) -> None:
        """Serve again after :meth:`leave`, as an engine that was started again."""
        self._lock = self.folder.lock()
        await self.server.start()

    def beat(self, **changes: Any) -> None:
        """Send the status, changed."""
        self.status = msgspec.structs.replace(self.status, time=self.now, **changes)
        self.server.send_beat(Beat(status=self.status))

    def event(self, event: AnyEvent) -> None:
        event = msgspec.structs.replace(event, seq=len(self.events) + 1)
        self.events.append(event)
        self.server.send_event(event)

    # ---------------------------------------------------------------------------------------------- data

    def finish_step(self, **metrics: float | None) -> int:
        """One more step, with plausible numbers that are the same in every run."""
        step = (self.last_step.step if self.last_step else 0) + 1
        self.now += 11.8
        algorithm = str(self.values["algorithm"])
        groups = [fake_group(step, number, algorithm=algorithm, branch=self.status.branch) for number in (1, 2, 3, 4)]
        for group in groups:
            self.groups[step, group.number] = group
        heads = [fake_head(step, group.number, algorithm=algorithm, branch=group.branch) for group in groups]
        self.event(GroupsScored(time=self.now, step=step, heads=heads))
        advantages = [r.advantage for g in groups for r in g.responses if r.advantage is not None]
        record = StepRecord(
            branch=self.status.branch, step=step, time=self.now,
            metrics={**fake_metrics(step, algorithm), **metrics},
            advantages=advantages, values=dict(self.values),
            trust_region=fake_search(step) if algorithm == "trpo" else None,
        )  # fmt: skip
        for name, value in record.metrics.items():
            self.series.setdefault(name, Series(name)).append(step, value)
        self.last_step = record
        self.status = msgspec.structs.replace(self.status, time=self.now, step=step + 1, finished_steps=step)
        self.event(StepDone(time=self.now, step=step, record=record))
        return step

    def warm_up(self, step: int, total: int, *, accuracy: float | None = None) -> None:
        """One more step of a warm-up of so many, before any of RL; step 0 has only the accuracy."""
        self.now += 1.5
        metrics: dict[str, float | None] = {}
        if step:
            loss = 0.2 + 2 * 0.9**step
            metrics = {"warmup/loss": loss, "warmup/grad_norm": 2 * loss, "warmup/tokens_per_second": 3000.0 + step}
        if accuracy is not None:
            metrics["warmup/accuracy"] = accuracy
        record = StepRecord(branch=WARM_UP, step=step, time=self.now, metrics=metrics)
        for name, value in metrics.items():
            self.series.setdefault(name, Series(name)).append(step, value)
        note = f"loss {metrics['warmup/loss']:.3f}" if step else ""
        self.event(StepDone(time=self.now, step=step, record=record))
        self.beat(
            branch=WARM_UP, phase="warming up", step=step + 1, done=step, total=total, note=note, finished_steps=0,
            left=1.5 * (total - step), tokens_per_second=3000.0,
        )  # fmt: skip

    def begin_rl(self) -> None:
        """The warm-up is over."""
        self.beat(branch="main", phase="sampling", step=1, done=0, total=64, note="")

    def head(self, group: Group) -> GroupHead:
        shown = {}
        for rating in self.ratings.values():
            if (rating.step, rating.group) == (group.step, group.number) and not rating.retracted:
                shown.update({letter: f"{value:g}" for letter, value in rating.values.items()})
        made = group.step, group.number, len(group.responses), "grpo", group.branch
        return fake_head(*made) if not shown and group == _made(*made) else head_of(group, shown)

    def raise_alarm(self, message: str, level: str = "warn") -> None:
        step = self.last_step.step if self.last_step else 0
        alarm = Alarm(
            id=f"alarm-{len(self.alarms)}",
            time=self.now,
            step=step,
            rule="r",
            message=message,
            level=level,  # type: ignore[arg-type]
        )
        self.alarms[alarm.id] = alarm
        self.event(AlarmRaised(time=self.now, step=step, alarm=alarm))

    def change(self, name: str, value: Any, who: str = "you", command: str = "") -> Change:
        step = self.last_step.step if self.last_step else 0
        change = Change(
            id=f"change-{len(self.changes)}", time=self.now, who=who, name=name, old=self.values[name], new=value,
            boundary="minibatch", status="applied", accepted_step=step, applied_step=step + 1, command=command,
        )  # fmt: skip
        self.values[name] = value
        self.changes[change.id] = change
        self.event(Changed(time=self.now, step=step, change=change))
        return change

    def set(self, **values: Any) -> None:
        """Set values as a command would, with what follows."""
        self._serve(c.Set(values=values, who="you"))

    def grow(self, *texts: str, ended: tuple[int, ...] = (), group: int = 1) -> None:
        """Send the growing text of a group of the step in progress to whoever wants it."""
        growing = Growing(
            step=self.status.step, group=group, groups=4, prompt="A train leaves at 14:05.", texts=list(texts),
            ended=[i in ended for i in range(len(texts))],
        )  # fmt: skip
        for connection in self.server.connections:
            if connection.growing >= 0:
                connection.latest(growing)

    def use_rating(self, rating: str, step: int, fate: RatingFate = "on_time", kl: float | None = None) -> None:
        """Say that an update used a rating."""
        of = self.ratings[rating]
        letters_ = [r.letter for r in self.groups[of.step, of.group].responses]
        use = RatingUse(
            rating=rating, group=f"{of.step}.{of.group}", fate=fate, step=step, kl=kl,
            advantages=dict.fromkeys(letters_, 0.5), automatic=dict.fromkeys(letters_, -0.5),
        )  # fmt: skip
        self.event(RatingUsed(time=self.now, step=step, use=use))

    def checkpoint(self) -> None:
        step = self.last_step.step if self.last_step else 0
        saved = Checkpoint(
            step=step, time=self.now, path=f"checkpoints/{step}", bytes=2 * 2**20, reason="asked for",
            branch=self.status.branch,
        )  # fmt: skip
        self.checkpoints.append(saved)
        self.event(CheckpointSaved(time=self.now, step=step, checkpoint=saved))

    def branch_infos(self) -> list[BranchInfo]:
        """Every branch; the one that is trained as it is now."""
        last = self.last_step
        main = BranchInfo(branch=Branch(name="main", time=START))
        infos = {"main": main} | self.infos if last is not None else {}
        active = self.status.branch
        if last is not None:
            infos[active] = msgspec.structs.replace(
                infos[active], active=True, tip=last.step, steps=last.step - infos[active].branch.step,
                time=last.time, metrics=last.metrics, values=dict(self.values),
                checkpoints=[p for p in self.checkpoints if p.branch == active],
            )  # fmt: skip
        return list(infos.values())

    def add_branch(self, name: str, step: int, *, parent: str = "main", tip: int, **more: Any) -> BranchInfo:
        """A branch beside the one that is trained."""
        given = {key: more.pop(key) for key in ("abandoned", "why", "seed") if key in more}
        branch = Branch(name=name, parent=parent, step=step, time=START + step * 11.8, **given)
        series = {}
        for metric, whole in self.series.items():
            series[metric] = Series(metric)
            for at, value in zip(whole.steps, whole.values, strict=True):
                if at <= tip:
                    lower = 0.0 if at <= step or value is None else -0.001 * (at - step)
                    series[metric].append(at, value if value is None else value + lower)
        self.others[name] = series
        values = {**self.values, **more.pop("values", {})}
        more.setdefault("begun_with", dict(self.values))
        self.infos[name] = BranchInfo(
            branch=branch, tip=tip, steps=tip - step, time=START + tip * 11.8,
            metrics={metric: series[metric].last for metric in series}, values=values, **more,
        )  # fmt: skip
        return self.infos[name]

    def go_to(self, branch: str, step: int) -> None:
        """Train another branch, or go back: every client gets a fresh snapshot."""
        self.status = msgspec.structs.replace(self.status, branch=branch, step=step + 1, finished_steps=step)
        for name, series in self.series.items():
            self.series[name] = Series(name)
            self.series[name].load(series.window(0, step))
        record = self.last_step
        assert record is not None
        self.last_step = msgspec.structs.replace(record, branch=branch, step=step)
        self.groups = {key: group for key, group in self.groups.items() if key[0] <= step}
        self.resync()

    def rewound(self, aside: str, step: int) -> None:
        """A rewind to a step has left a branch behind."""
        self.add_branch(aside, step, tip=step + 1, abandoned=True)
        self.resync()

    def resync(self) -> None:
        """A fresh snapshot for every client."""
        for connection in self.server.connections:
            connection.resync()

    # ------------------------------------------------------------------------------------------- backend

    def welcome(self) -> Welcome:
        return Welcome(
            protocol=PROTOCOL, version="0", session=self.name, database="fake", seq=len(self.events), pid=4121
        )

    def snapshot(self) -> Snapshot:
        return Snapshot(
            seq=len(self.events),
            status=self.status,
            task=TaskInfo(
                name="gsm8k", reward_range=(0.0, 1.0), components={"accuracy": 1.0}, prompts=100, evaluation_prompts=10
            ),
            values=dict(self.values),
            start_values=dict(self.start_values),
            series=[series.data(2000) for series in self.series.values()],
            heads=[self.head(group) for group in list(self.groups.values())[-200:]],
            ratings=list(self.ratings.values())[-self.snapshot_ratings :],
            changes=list(self.changes.values()),
            alarms=list(self.alarms.values()),
            checkpoints=list(self.checkpoints),
            events=self.events[-self.snapshot_events :],
            last_step=self.last_step,
            branches=[info.branch for info in self.branch_infos()],
        )

    def clients_changed(self) -> None:
        self.status = msgspec.structs.replace(
            self.status, clients=[connection.title for connection in self.server.connections]
        )

    async def command(self, command: c.Command, reply: Callable[[Answer], None]) -> None:
        self.received.append(command)
        tag = str(command.__struct_config__.tag)
        if tag in self.refuse:
            reply(Answer(id=command.id, status="rejected", text=self.refuse[tag]))
            return
        try:
            answer = self._serve(command)
        except KeyError as error:
            answer = Answer(id=command.id, status="rejected", text=f"no {error}")
        reply(answer)

    def _serve(self, command: c.Command) -> Answer:
        step = self.status.step
        match command:
            case c.Pause() | c.Resume():
                state: State = "PAUSED" if isinstance(command, c.Pause) else "RUN"
                self.beat(state=state, note="paused by you at 12:00" if state == "PAUSED" else "")
                text = "paused" if state == "PAUSED" else "running"
                self.event(Noted(time=self.now, step=step, kind=text, text=f"{text} by you", who=command.who))
                return Answer(id=command.id, status="applied", step=step, text=text)
            case c.Set(values=values):
                for name, expected in command.expect.items():
                    if self.values[name] != expected:
                        knob = hyperparameter(name)
                        text = f"{name} is {knob.show(self.values[name])} now, not {knob.show(expected)}"
                        return Answer(id=command.id, status="rejected", text=text)
                if command.preset:
                    values = {**preset(command.preset).settings(self.values["max_new_tokens"]), **values}  # type: ignore[arg-type]
                for name, value in switched(self.values, values).items():
                    if value != self.values[name]:
                        self.change(name, value, command.who, command.id)
                if self.status.algorithm != self.values["algorithm"]:
                    self.beat(algorithm=self.values["algorithm"])
                return Answer(id=command.id, status="applied", step=step, text=f"{len(values)} set from step {step}")
            case c.TakeCheckpoint():
                self.checkpoint()
                return Answer(id=command.id, status="applied", step=step, text=f"checkpoint of step {step}")
            case c.Acknowledge():
                for alarm in list(self.alarms.values()):
                    if not alarm.acknowledged:
                        done = msgspec.structs.replace(alarm, acknowledged=self.now)
                        self.alarms[alarm.id] = done
                        self.event(AlarmRaised(time=self.now, step=step, alarm=done))
                return Answer(id=command.id, status="applied", text="acknowledged")
            case c.Rate():
                return self._rate(command)
            case c.Skip(response=text):
                name = parse_response_name(text)
                self.now += TICK
                skip = SkipRecord(
                    id=command.id, time=self.now, who=command.who, branch="main", step=name.step, group=name.group,
                    letter=name.letter, reason=command.reason, rule=command.rule,
                )  # fmt: skip
                self.skips[skip.id] = skip
                self.event(Skipped(time=self.now, step=skip.step, skip=skip))
                return Answer(id=command.id, status="applied", step=step, text="skipped")
            case c.Picked():
                return Answer(id=command.id, status="applied", step=step, text="noted")
            case c.QueryRatings(limit=limit, before=before):
                names = list(self.ratings)
                upto = names.index(before) if before else len(names)
                return self._data(command, list(self.ratings.values())[max(0, upto - limit) : upto])
            case c.Retract(rating=rating_id) if rating_id in self.skips:
                self.now += TICK
                taken = msgspec.structs.replace(self.skips[rating_id], retracted=self.now)
                self.skips[rating_id] = taken
                self.event(Skipped(time=self.now, step=taken.step, skip=taken))
                return Answer(id=command.id, status="applied", text="it waits for a rating again")
            case c.Retract(rating=rating_id):
                self.now += TICK
                rating = self.ratings[rating_id]
                self.ratings[rating_id] = msgspec.structs.replace(rating, retracted=self.now)
                self.event(RatingRetracted(time=self.now, step=rating.step, rating=rating_id, who=command.who))
                self._changed(rating.step, rating.group)
                return Answer(id=command.id, status="applied", text="taken back")
            case c.QuerySeries(names=names, first=first, last=last, limit=limit, branch=branch):
                series = self.others.get(branch, self.series)
                found = [series[name].window(first, last, limit) for name in names if name in series]
                return self._data(command, found)
            case c.QueryBranches():
                return self._data(command, self.branch_infos())
            case c.QueryRose():
                return self._data(command, self.roses)
            case c.QueryEvaluation() if self.evaluation is not None:
                return self._data(command, self.evaluation)
            case c.QueryProbes(branch=branch):
                return self._data(command, self.answers.get(branch, []))
            case c.QueryGroups(before=before, limit=limit, unrated=unrated):
                heads = [self.head(g) for g in reversed(self.groups.values()) if not before or g.step < before]
                return self._data(command, [h for h in heads if not unrated or not h.ratings][:limit])
            case c.QueryGroup(group=text):
                name = parse_response_name(text)
                group = self.groups[name.step, name.group]
                ratings = [r for r in self.ratings.values() if (r.step, r.group) == (name.step, name.group)]
                return self._data(command, GroupDetail(group=group, head=self.head(group), ratings=ratings))
            case c.QueryResponse(response=text):
                name = parse_response_name(text)
                responses = {r.letter: r for r in self.groups[name.step, name.group].responses}
                return self._data(command, responses[name.letter])
            case c.QueryEvents(before=before, limit=limit):
                events = [e for e in reversed(self.events) if not before or e.seq < before]
                return self._data(command, events[:limit])
            case c.QueryStatus():
                return self._data(command, self.status)
            case c.QueryPlan():
                return self._data(command, self._plan(command.values))
            case c.QueryWatches():
                return self._data(command, self.watches)
            case _:
                return Answer(id=command.id, status="applied", step=step, text=self.other_text)

    def _data(self, command: c.Command, data: Any) -> Answer:
        return Answer(id=command.id, status="data", data=encode_json(data))

    def _plan(self, given: dict[str, Any]) -> Plan:
        """Memory and seconds that grow with the tokens of a step."""
        ahead = {**self.values, **switched(self.values, given)}
        sizes = ("group_size", "prompts_per_step", "max_new_tokens", "epochs")
        times = math.prod(float(ahead[n]) / float(self.values[n]) for n in sizes)  # type: ignore[arg-type]
        then = (8.0 + 3.2 * times) * 1e9
        unknown = "" if self.last_step else "known after the first step"
        return Plan(
            step=self.status.finished_steps, algorithm=str(ahead["algorithm"]), memory_now=11.2e9, memory_then=then,
            memory_most=then, memory_available=24e9, memory_total=32e9,
            values={n: v for n, v in ahead.items() if v != self.values[n]},
            seconds_now=None if unknown else 11.8, seconds_then=None if unknown else 11.8 * times,
            seconds_least=None if unknown else 10.0 * times, seconds_most=None if unknown else 13.0 * times,
            memory_parts=[PlanPart(name="activations", now=3.2e9, then=3.2e9 * times)],
            basis="seconds measured over the last 20 steps of grpo", unknown=unknown,
            warning=f"about {then / 1e9:.0f} GB is needed and 24 GB is there" if then > 24e9 else "",
        )  # fmt: skip

    def _rate(self, command: c.Rate) -> Answer:
        name = parse_response_name(command.group)
        rating_mode(command.mode).check(command.values, command.text, command.flags)
        place = (command.who, name.step, name.group)
        earlier = [r for r in standing(self.ratings.values()) if (r.who, r.step, r.group) == place]
        mine = [r for r in earlier if replaces(command.mode, command.values, r.mode, r.values)]
        self.now += TICK
        rating = Rating(
            id=command.id, time=self.now, who=command.who, branch="main", step=name.step, group=name.group,
            mode=command.mode, values=command.values, comment=command.comment, order=command.order,
            blind=command.blind, seconds=command.seconds,
            supersedes=mine[-1].id if mine and not command.repeats else "", text=command.text, flags=command.flags,
            rule=command.rule, repeats=command.repeats, redoes=command.redoes,
        )  # fmt: skip
        self.ratings[rating.id] = rating
        self.event(RatingSaved(time=self.now, step=name.step, rating=rating))
        self._changed(name.step, name.group)
        return Answer(id=command.id, status="applied", step=name.step, text=self.rated_text.format(id=command.id))

    def _changed(self, step: int, number: int) -> None:
        heads = [self.head(self.groups[step, number])]
        self.event(GroupsChanged(time=self.now, step=step, heads=heads))


def fake_metrics(step: int, algorithm: str = "grpo") -> dict[str, float | None]:
    """The metrics of a step."""
    wave = math.sin(step / 7)
    grown = 1 - math.exp(-step / 60)
    ppo = {
        "value/explained_variance": 0.7 * grown + 0.05 * wave - 0.1,
        "value/loss": 0.02 + 0.1 * math.exp(-step / 30),
        "value/clip_fraction": 0.12,
        "value/mean": 0.5 * grown,
        "value/warmup_left": float(max(0, 5 - step)),
        "value/grad_norm": 0.8 + 0.1 * wave,
    }
    trpo = {
        "trpo/step_fraction": 0.8 ** (step % 3),
        "trpo/kl_realised": 0.008 + 0.0015 * wave,
        "trpo/cg_residual": 0.08 + 0.03 * wave,
        "trpo/cg_iterations": 10.0,
        "trpo/gain_predicted": 0.0034,
        "trpo/gain_actual": 0.0026,
        "trpo/gain_ratio": 0.76,
        "ratio/max": 1.8,
    }
    return {
        **({"ppo": ppo, "trpo": trpo}.get(algorithm, {})),
        "reward/mean": 0.5 * (1 - math.exp(-step / 60)) + 0.03 * wave,
        "reward/std": 0.3,
        "reward/accuracy": 0.4,
        "groups/dead_fraction": 0.25,
        "advantage/mean": 0.0,
        "advantage/std": 0.9 + 0.05 * wave,
        "advantage/abs_max": 2.1,
        "kl/k3": 0.02 + 0.0002 * step + 0.004 * (1 + wave),
        "entropy": 1.0 + 0.6 * math.exp(-step / 50),
        "loss/policy": 0.02 * wave,
        "clip/low": 0.05,
        "clip/high": 0.06,
        "grad/norm": 0.4 + 0.1 * wave,
        "response/length": 200 + 100 * math.exp(-step / 40) + 10 * wave,
        "response/truncated_fraction": 0.03,
        "speed/tokens_per_second": 1900.0,
        "time/step": 11.8,
        "time/sampling": 7.9,
        "time/updating": 3.5,
        "time/scoring": 0.4,
        "time/waiting": 0.0,
    }


def fake_search(step: int) -> TrustRegionStep:
    """The line search of a step: the first try goes too far, or gains nothing."""
    fractions = [0.8**j for j in range(step % 3 + 1)]
    return TrustRegionStep(
        product="exact",
        residuals=[0.5 * 0.8**i for i in range(10)],
        curvature=12.1,
        damping=0.0121,
        predicted_gain=0.0034,
        tries=[
            Try(fraction=f, kl=0.0145 * f**2, gain=0.0026 if j else 0.0031, accepted=j == len(fractions) - 1)
            for j, f in enumerate(fractions)
        ],
    )


def fake_values(length: int, reward: float) -> dict[str, list[float]]:
    """What a value model says of a response: it comes closer to the return from token to token."""
    values = [0.5 + (reward - 0.5) * (i + 1) / length for i in range(length)]
    returns = [reward * 0.99 ** (length - 1 - i) for i in range(length)]
    return {"values": values, "returns": returns, "advantages": [r - v for r, v in zip(returns, values)]}


def fake_group(step: int, number: int, size: int = 8, algorithm: str = "grpo", branch: str = "main") -> Group:
    """A group of a step: some right, some wrong, one cut, every fourth group dead; a test may change it."""
    made = _made(step, number, size, algorithm, branch)
    return msgspec.structs.replace(made, responses=[copy(response) for response in made.responses])


@functools.cache
def fake_head(step: int, number: int, size: int = 8, algorithm: str = "grpo", branch: str = "main") -> GroupHead:
    """The head of that group before anybody rates it; the same one each time."""
    return head_of(_made(step, number, size, algorithm, branch))


@functools.cache
def _made(step: int, number: int, size: int, algorithm: str, branch: str) -> Group:
    """The same group each time: hundreds of tests begin with the same hundred steps."""
    responses = []
    for index in range(size):
        right = True if number == 4 else (index * 7 + step + number) % 3 == 0
        responses.append(
            Response(
                letter=letters(index),
                text=f"Outbound: 180 / 90 = 2 h, so it arrives at 16:05.\nIt waits [{step}].\n\n#### {index}",
                length=120 + 30 * index,
                ended=index != size - 1 or number == 4,
                components={"accuracy": float(right), "format": 1.0},
                reward=float(right),
                advantage=0.0 if number == 4 else (0.94 if right else -0.94),
                kl=0.01 * (index + 1),
                **(fake_values(120 + 30 * index, float(right)) if algorithm == "ppo" else {}),
            )
        )
    return Group(
        branch=branch,
        step=step,
        number=number,
        prompt_id=f"p{number}",
        prompt="A train leaves at 14:05 and travels 180 km at 90 km/h. When is it back?",
        answer="19:17",
        temperature=1.0,
        responses=responses,
        status="updated",
    )


async def main(home: Path, pace: float) -> None:
    """Run by hand: ``python -m tests.screens.fake_engine HOME`` and attach a screen to it."""
    async with FakeEngine(home, steps=120, clock=time.time() - 1400) as engine:
        engine.change("learning_rate", 5e-7)
        engine.checkpoint()
        engine.raise_alarm("kl/k3 jump 5.2x @100")
        done = 0
        while True:
            await asyncio.sleep(0.5)
            engine.now = time.time()
            done += 8
            if done > 64:
                done = 0
                engine.finish_step()
            engine.beat(done=done, elapsed=engine.status.elapsed + 0.5)


if __name__ == "__main__":
    import sys

    asyncio.run(main(Path(sys.argv[1]), 0.5))
