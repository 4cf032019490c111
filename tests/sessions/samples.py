"""Records to test with."""

from __future__ import annotations

import uuid

from sessions.records import (
    Alarm,
    Change,
    Checkpoint,
    Group,
    Rating,
    RatingUse,
    Response,
    SkipRecord,
    Status,
    StepRecord,
    letters,
)


def response(letter: str, reward: float | None = 1.0, tokens: int = 3) -> Response:
    return Response(
        letter=letter,
        text="12\n",
        length=tokens,
        ended=True,
        components={"accuracy": reward, "format": None},
        reward=reward,
        tokens=list(range(tokens)),
        ends=list(range(1, tokens + 1)),
        logprobs=[-0.5] * tokens,
        entropies=[0.25] * tokens,
    )


def group(step: int = 3, number: int = 1, rewards: list[float | None] | None = None, branch: str = "main") -> Group:
    given = [1.0, 0.0, 0.0, 1.0] if rewards is None else rewards
    return Group(
        branch=branch,
        step=step,
        number=number,
        prompt_id=f"p{number}",
        prompt="5+7=",
        answer="12",
        temperature=1.0,
        responses=[response(letters(i), reward) for i, reward in enumerate(given)],
        prompt_tokens=[1, 2, 3],
    )


def rating(step: int = 3, number: int = 1, values: dict[str, float] | None = None, **more) -> Rating:
    return Rating(
        **{
            "id": str(uuid.uuid4()),
            "time": 100.0,
            "who": "ann",
            "branch": "main",
            "step": step,
            "group": number,
            "mode": "likert",
            "values": values or {"A": 4.0},
            **more,
        }
    )


def step_record(step: int = 3, branch: str = "main", **metrics: float | None) -> StepRecord:
    return StepRecord(
        branch=branch,
        step=step,
        time=100.0 + step,
        metrics={"reward/mean": 0.5 + step / 1000, **metrics},
        advantages=[1.0, -1.0],
        values={"learning_rate": 1e-4, "group_size": 4, "rating_gate": "async"},
    )


def use(rating_id: str = "r1", step: int = 4) -> RatingUse:
    return RatingUse(
        rating=rating_id, group="3.1", fate="late", step=step, kl=0.003, advantages={"A": 1.0}, automatic={"A": 0.0}
    )


def change(change_id: str = "c1", **more) -> Change:
    return Change(
        **{
            "id": change_id,
            "time": 100.0,
            "who": "ann",
            "name": "learning_rate",
            "old": 1e-4,
            "new": 2e-4,
            "boundary": "minibatch",
            "accepted_step": 3,
            **more,
        }
    )


def alarm(alarm_id: str = "a1", **more) -> Alarm:
    return Alarm(**{"id": alarm_id, "time": 100.0, "step": 3, "rule": "kl", "message": "kl 0.9 is over 0.5", **more})


def skip(step: int = 3) -> SkipRecord:
    return SkipRecord(id="s1", time=100.0, who="ann", branch="main", step=step, group=1, letter="B", reason="unclear")


def checkpoint(step: int = 3, **more) -> Checkpoint:
    return Checkpoint(**{"step": step, "time": 100.0, "path": str(step), "bytes": 1000, "reason": "command", **more})


def status(state: str = "RUN", **more) -> Status:
    return Status(
        **{"time": 100.0, "session": "s", "branch": "main", "state": state, "phase": "sampling", "step": 3, **more}
    )
