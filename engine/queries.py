"""Queries: what people may look up in a session while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessions import commands as c
from sessions import wire
from sessions.branches import find_branch
from sessions.errors import InvalidValue, Refused
from sessions.past_evaluations import evaluation_view
from sessions.records import ResponseName, parse_response_name
from sessions.rose import rated_now, roses
from sessions.store import Store

if TYPE_CHECKING:
    from engine.engine import Engine


async def answer_query(engine: Engine, command: c.Command) -> Any:
    """The records that a query asks for.

    :raises InvalidValue: if it names something that is not there.
    """
    store, branch = engine.store, engine.branch
    match command:
        case c.QueryStatus():
            return engine.service.status()
        case c.QuerySeries():
            series = engine.board.series
            if command.branch not in ("", branch):
                find_branch(command.branch, await engine.write(store.branches))
                series = await engine.write(store.series, command.branch)
            unknown = [n for n in command.names if n not in series]
            if unknown:
                known = ", ".join(sorted(series)) or "none yet"
                raise InvalidValue(f"no series {unknown[0]!r}; there are: {known}")
            limit = min(max(command.limit, 4), 100_000)
            return [series[n].window(command.first, command.last, limit) for n in command.names]
        case c.QueryBranches():
            return await engine.write(store.branch_infos)
        case c.QueryProbes():
            find_branch(command.branch, await engine.write(store.branches))
            return await engine.write(store.probes, command.branch)
        case c.QueryRose():
            limit = min(max(command.limit, 1), 200)
            while await engine.write(store.prompts.catch_up):
                pass  # in parts, so that what a step keeps need not wait for all of it
            return await engine.write(
                lambda: roses(store, branch, command.step, limit, rated=rated_now(store))
            )  # fmt: skip
        case c.QueryEvaluation():
            return await engine.write(evaluation_view, store, branch, command.step, command.earlier)
        case c.QueryGroups():
            limit = min(max(command.limit, 1), 2000)
            return await engine.write(
                lambda: store.heads(branch, command.before, limit, unrated=command.unrated)
            )  # fmt: skip
        case c.QueryRatings():
            return await engine.write(store.recent_ratings, min(max(command.limit, 1), 2000), command.before)
        case c.QueryGroup():
            return await engine.write(_detail, store, branch, parse_response_name(command.group))
        case c.QueryResponse():
            name = parse_response_name(command.response)
            group = await engine.write(store.group, name, branch)
            found = [r for r in group.responses if r.letter == name.letter]
            if not found:
                raise InvalidValue(f"group {group.name} has no response {name.letter!r}")
            return found[0]
        case c.QueryEvents():
            return await engine.write(store.events, command.before, min(max(command.limit, 1), 2000))
        case c.QueryWatches():
            if not engine.service.ready:
                raise Refused("the engine is still loading; try again")
            return engine.watching.states(engine.board.alarms.values())
        case c.QueryRewardModel():
            return engine.reward.state()
        case c.QueryPlan():
            planner = engine.learner.planner
            if not engine.service.ready or planner is None:
                raise Refused("the engine is still loading; try again")
            return planner.plan(command.values)
    raise Refused(f"{type(command).__name__}: this engine does not serve it")


def _detail(store: Store, branch: str, name: ResponseName) -> wire.GroupDetail:
    group = store.group(name, branch)
    ratings = store.ratings_of(name, branch)
    return wire.GroupDetail(
        group=group,
        ratings=ratings,
        uses=store.uses_of(ratings, branch),
        head=store.heads_of([group])[0],
    )
