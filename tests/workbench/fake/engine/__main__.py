"""``python -m engine SESSION_DIR`` as the front door knows it: lock, socket, engine.json, loading, steps, an end.

``FAKE_ENGINE`` chooses the fate: ``error`` and ``usage`` end while loading with a line, ``trace`` with an exception,
``stay`` never finishes loading, ``deaf`` does not stop, ``kill`` is killed after three steps, ``raise`` raises after
three; ``followed`` begins once somebody follows, and ``followed-kill`` is then killed after three; ``race-kill`` is
killed in the second branch of a race, ``race-late`` refuses the first two races. A ``set`` applies when the next step
ends, everything else at once. A race makes a branch for each algorithm, one after the other, each from the same step.
Every event is stored, as the real engine's are.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sessions import wire
from sessions.branches import Branch, Probe
from sessions.commands import (
    Command,
    Pause,
    QueryBranches,
    QueryEvents,
    QueryGroup,
    QueryGroups,
    QueryPlan,
    QueryProbes,
    QueryResponse,
    QueryRose,
    QuerySeries,
    QueryStatus,
    QueryWatches,
    Race,
    Rate,
    Resume,
    Set,
    Stop,
)
from sessions.errors import WorkbenchError
from sessions.folders import EngineInfo, SessionFolder
from sessions.hyperparameters import parse_assignment
from sessions.plans import Plan
from sessions.records import Alarm, Group, Response, Status, StepRecord, parse_response_name
from sessions.rose import rated_now, roses
from sessions.server import Server
from sessions.store import Store
from sessions.watch_book import WatchState

FATE = os.environ.get("FAKE_ENGINE", "")
STEP_SECONDS = float(os.environ.get("FAKE_ENGINE_STEP", "0.01"))


class FakeEngine:
    def __init__(self, folder: SessionFolder) -> None:
        self.folder, self.settings = folder, folder.settings()
        self.lock = folder.lock()
        self.store = Store(folder.database)
        last = self.store.last_step("main")
        self.step = last.step if last else 0
        self.state = "LOADING"
        self.branch = "main"
        self.race: Race | None = None
        self.racers: list[str] = []
        self.refused: list[str] = []
        self.home = ("main", 0)
        self.stop = asyncio.Event()
        self.pending: list[tuple[Set, Callable[[wire.Answer], None]]] = []
        self.server = Server(folder.socket_path(), self)

    def welcome(self) -> wire.Welcome:
        return wire.Welcome(
            protocol=1,
            version="fake",
            session=self.folder.name,
            database=self.store.database_id,
            seq=self.store.last_seq(),
            pid=os.getpid(),
        )

    def status(self) -> Status:
        return Status(
            time=time.time(),
            session=self.folder.name,
            branch=self.branch,
            state=self.state,
            phase="sampling",
            step=self.step,
            finished_steps=self.step,
            steps=self.settings.steps,
            left=1.0,
            pid=os.getpid(),
            clients=[connection.title for connection in self.server.connections],
        )

    def snapshot(self) -> wire.Snapshot:
        return wire.Snapshot(seq=self.store.last_seq(), status=self.status())

    def clients_changed(self) -> None:
        pass

    def beat(self) -> None:
        self.server.send_beat(wire.Beat(status=self.status()))

    async def command(self, command: Command, reply: Callable[[wire.Answer], None]) -> None:
        try:
            self.answer(command, reply)
        except WorkbenchError as error:
            reply(wire.Answer(id=command.id, status="rejected", text=str(error)))

    def answer(self, command: Command, reply: Callable[[wire.Answer], None]) -> None:
        def data(value: object) -> None:
            reply(wire.Answer(id=command.id, status="data", data=wire.encode_json(value)))

        store = self.store
        match command:
            case QueryStatus():
                data(self.status())
            case QueryEvents(before=before, limit=limit):
                data(store.events(before, limit))
            case QueryGroups(limit=limit):
                data(store.heads("main", limit=limit))
            case QueryGroup(group=group):
                name = parse_response_name(group)
                ratings = store.ratings_of(name, "main")
                data(wire.GroupDetail(group=store.group(name, "main"), head=store.head(name, "main"), ratings=ratings))
            case QueryResponse(response=response):
                name = parse_response_name(response)
                data(next(r for r in store.group(name, "main").responses if r.letter == name.letter))
            case QuerySeries(names=names):
                data([s for s in store.series_data("main") if s.name in names])
            case QueryPlan(values=values):
                data(
                    Plan(
                        step=1, algorithm="grpo", values=values, memory_now=1e9, memory_then=2e9, memory_most=2e9,
                        memory_available=8e9, memory_total=9e9, seconds_now=0.5, seconds_then=1.0, basis="a guess",
                    )
                )  # fmt: skip
            case QueryBranches():
                data(store.branch_infos())
            case QueryProbes(branch=branch):
                data(store.probes(branch))
            case QueryRose(step=step):
                data(roses(store, "main", step, rated=rated_now(store)))
            case Race(algorithms=[]):
                self.note("branch", "ann: gave race 1 up")
                self.leave_race()
                reply(wire.Answer(id=command.id, status="applied", step=self.step, text="gave race 1 up"))
            case Race() if FATE == "race-late" and len(self.refused) < 2 and command.id not in self.refused:
                self.refused.append(command.id)
                raise WorkbenchError("not before the first step: there is no checkpoint to go back to yet")
            case Race() if command.id in self.refused:  # a repeat of a command gets the same answer
                raise WorkbenchError("not before the first step: there is no checkpoint to go back to yet")
            case Race(algorithms=algorithms, steps=steps):
                if self.race is not None:
                    raise WorkbenchError("a race is under way; `race stop` gives it up")
                self.race, self.home, self.state = command, (self.branch, self.step), "RUN"
                reply(wire.Answer(id=command.id, status="accepted", text=f"races {', '.join(algorithms)}"))
                self.next_racer()
                text = f"race 1 begins: {', '.join(algorithms)}, {steps} steps from step {self.home[1]}"
                reply(wire.Answer(id=command.id, status="applied", step=self.step, text=text))
            case QueryWatches():
                data([WatchState(name="cut", rule="response/length > 9", on=True, state="holds")])
            case Set():
                reply(wire.Answer(id=command.id, status="accepted", text="due at the next rollout"))
                self.pending.append((command, reply))
                self.note("asked", f"{command.who} asked for {command.values}, expecting {command.expect}")
            case Pause() | Resume() | Stop():
                if isinstance(command, Stop):
                    if FATE == "deaf":
                        reply(wire.Answer(id=command.id, status="accepted"))
                        return
                    self.note("stopping", f"{command.who} stops the session")
                    self.stop.set()
                else:
                    self.state = "PAUSED" if isinstance(command, Pause) else "RUN"
                    self.beat()
                reply(wire.Answer(id=command.id, status="applied", step=self.step, text=type(command).__name__.lower()))
            case Rate():
                reply(wire.Answer(id=command.id, status="rejected", text="nothing is rated here"))

    def note(self, kind: str, text: str) -> None:
        self.server.send_event(self.store.add_event(wire.Noted(time=time.time(), step=self.step, kind=kind, text=text)))

    def next_racer(self) -> None:
        assert self.race is not None
        if len(self.racers) == len(self.race.algorithms):
            self.note("race", f"race 1 is over: workbench compare {self.folder.name} {' '.join(self.racers)}")
            self.leave_race()
            self.state = "PAUSED"
            return
        algorithm = self.race.algorithms[len(self.racers)]
        self.branch, self.step = f"race-1-{algorithm}", self.home[1]
        self.store.add_branch(Branch(name=self.branch, parent=self.home[0], step=self.step, time=time.time()))
        self.racers.append(self.branch)
        self.note("race", f"{self.branch} begins at step {self.step} of {self.home[0]}")

    def leave_race(self) -> None:
        self.race, (self.branch, self.step) = None, self.home
        self.store.use_branch(self.branch)

    def finish_racing_step(self) -> None:
        if self.race is None:
            return
        if FATE == "race-kill" and len(self.racers) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.step == self.home[1] + self.race.steps:
            right = self.branch.endswith("ppo")
            asked = {"branch": self.branch, "step": self.step, "place": 0, "prompt": "5+7=", "answer": "12"}
            self.store.add_probes([Probe(**asked, text="12" if right else "13", right=right)])
            self.next_racer()

    def finish_step(self) -> None:
        self.step += 1
        group = Group(
            branch=self.branch,
            step=self.step,
            number=1,
            prompt_id="p",
            prompt="5+7=",
            answer="12",
            temperature=1.0,
            responses=[Response(letter="A", text="first\x1b[31m\nline", length=3, ended=True, reward=1.0)],
        )
        self.store.add_groups([group])
        gain = {"race-1-ppo": 0.5, "race-1-trpo": 0.25}.get(self.branch, 0.0)
        metrics = {"reward/mean": self.step / 100 + gain, "kl/k3": 0.001, "speed/tokens_per_second": 1234.0}
        values = {"algorithm": self.branch.rpartition("-")[2]} if self.race is not None else {"algorithm": "grpo"}
        record = StepRecord(branch=self.branch, step=self.step, time=time.time(), metrics=metrics, values=values)
        self.server.send_event(self.store.add_step(record, [group], 500))
        if self.step == 2:
            alarm = Alarm(
                id=f"a{time.time()}", time=time.time(), step=2, rule="kl", message="kl is high", remedy="wait"
            )
            self.server.send_event(self.store.put_alarm(alarm))
        for command, reply in self.pending:
            reply(wire.Answer(id=command.id, status="applied", step=self.step, text=", ".join(command.values)))
        self.pending.clear()
        self.finish_racing_step()
        self.beat()

    def is_followed(self) -> bool:
        return any(connection.hello.client == "follow" for connection in self.server.connections)

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stop.set)
        await self.server.start()
        info = EngineInfo(pid=os.getpid(), socket=self.server.path, started=time.time(), version="fake")
        self.folder.write_engine(info)
        for text in self.settings.sets:
            parse_assignment(text)
        if FATE == "trace":
            raise ValueError("the weights are upside down")
        if FATE in ("error", "usage"):
            error = WorkbenchError("model x: cannot be loaded (nothing in it)")
            error.exit_code = 2 if FATE == "usage" else 1
            self.state = "FAILED"
            self.beat()
            await asyncio.sleep(0.2)  # as one that still closes its database: whoever waits sees it failed, and alive
            await self.server.close()
            self.folder.forget_engine()
            raise error
        if FATE != "stay":
            self.state = "PAUSED" if self.settings.paused else "RUN"
        self.beat()
        started = self.step
        limit = self.settings.steps
        while not self.stop.is_set() and (self.race is not None or not (limit and self.step >= limit)):
            try:
                await asyncio.wait_for(self.stop.wait(), STEP_SECONDS)
            except TimeoutError:
                if self.state == "RUN" and (not FATE.startswith("followed") or self.is_followed()):
                    self.finish_step()
            if self.step == started + 3 and FATE in ("kill", "followed-kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.step == started + 3 and FATE == "raise":
                raise ValueError("in the middle")
        self.state = "DONE"
        self.beat()
        await self.server.close()
        self.folder.forget_engine()
        self.store.close()


def main() -> int:
    try:
        asyncio.run(FakeEngine(SessionFolder(Path(sys.argv[1]))).run())
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
