"""From reward components to the automatic reward of each response.

A component that fails on a response (raises, returns something that is not a finite number, or the wrong count)
excludes that response; it never stops the run.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import reprlib
import threading
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

from engine.rewards import Component
from engine.rewards.component import Failed
from engine.rewards.worker import error_words, finite
from engine.tasks.task import Prompt, given_columns

NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Scored:
    """The automatic reward of one response.

    :ivar reward: weighted sum of the components that apply; None when none does or one failed.
    :ivar failed: ``component: reason``, or empty.
    """

    components: dict[str, float | None]
    reward: float | None
    failed: str = ""


def score_group(
    components: Mapping[str, Component],
    prompt: Prompt,
    completions: Sequence[str],
    tokens: Sequence[Sequence[int]] | None = None,
    state: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] = NO_WEIGHTS,
) -> list[Scored]:
    """Score the responses to one prompt with every component.

    :param tokens: of each completion, which functions get as ``completion_ids``.
    :param state: what the run has come to, which they get as attributes of ``trainer_state``.
    :param weights: of the components now, where they are not those of the beginning.
    :returns: one entry a completion, in order.
    """
    now = {name: weights.get(name, component.weight) for name, component in components.items()}
    found = values_of(components, prompt, completions, tokens, state)
    return [weighted(now, values, failed) for values, failed in found]


def values_of(
    components: Mapping[str, Component],
    prompt: Prompt,
    completions: Sequence[str],
    tokens: Sequence[Sequence[int]] | None = None,
    state: Mapping[str, Any] | None = None,
) -> list[tuple[dict[str, float | None], str]]:
    """What every component makes of the responses to one prompt; parameters as of :func:`score_group`.

    :returns: for each completion its components, and ``component: reason`` of the first that failed, or empty.
    """
    n = len(completions)
    values: list[dict[str, float | None]] = [{} for _ in range(n)]
    failed = [""] * n
    for name, component in components.items():
        for i, result in enumerate(_call(name, component, prompt, completions, tokens, state)):
            if isinstance(result, str):
                failed[i] = failed[i] or result
                values[i][name] = None
            else:
                values[i][name] = result
    return list(zip(values, failed, strict=True))


def weighted(weights: Mapping[str, float], values: dict[str, float | None], failed: str) -> Scored:
    """The weighted sum of the components that apply to a response."""
    if failed:
        return Scored(values, None, failed)
    applying = [(weights[name], value) for name, value in values.items() if value is not None]
    taught = [weight * value for weight, value in applying if weight != 0]
    try:
        reward = math.fsum(taught) if taught else None
    except (OverflowError, ValueError):  # beyond the largest float, or infinities of both signs
        reward = math.inf
    if reward is not None and not math.isfinite(reward):
        return Scored(values, None, f"the sum of {', '.join(values)} is not a finite number")
    return Scored(values, reward)


def _call(
    name: str,
    component: Component,
    prompt: Prompt,
    completions: Sequence[str],
    tokens: Sequence[Sequence[int]] | None,
    state: Mapping[str, Any] | None,
) -> Sequence[float | str | None]:
    """One result a completion: a finite number, None, or what went wrong as text."""
    n = len(completions)
    columns = given_columns(prompt)
    if _is_built_in(component):
        columns["answer"] = prompt.answer  # the reference, where the row's own column may be all of a worked answer
    asked: object = list(prompt.messages) or prompt.text
    answered = [[{"role": "assistant", "content": text}] for text in completions] if prompt.messages else completions
    given: dict[str, Any] = {key: [value] * n for key, value in columns.items()}
    if tokens is not None:
        given["completion_ids"] = [list(row) for row in tokens]
    if state is not None:
        given["trainer_state"] = SimpleNamespace(**state)
    try:
        result: Any = component.function(prompts=[asked] * n, completions=list(answered), **given)
        results = list(_LOOP.wait_for(result) if inspect.isawaitable(result) else result)
    except Failed as error:
        return [f"{name}: {error}"] * n
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code may raise anything; none of it may stop the run
        return [f"{name}: raised {error_words(error)}"] * n
    if len(results) != n:
        return [f"{name}: returned {len(results)} values for {n} completions"] * n
    return [_checked(name, result) for result in results]


def _is_built_in(component: Component) -> bool:
    """Whether it is ours; what people bring, as a function or a program, gets their rows as they are."""
    module = str(getattr(component.function, "__module__", ""))
    return module.startswith("engine.rewards") and module not in ("engine.rewards.named", "engine.rewards.command")


def _checked(name: str, result: object) -> float | str | None:
    if result is None:
        return None
    if isinstance(result, Failed):
        return f"{name}: {result}"
    if (number := finite(result)) is not None:
        return number
    return f"{name}: returned {reprlib.repr(result)}, which is not a finite number"


class _Loop:
    """Where async functions of this process run: one loop for all calls, as clients that are kept open need it."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def wait_for(self, result: Awaitable[Any]) -> Any:
        """What an async function gives; on a thread that runs no loop."""

        async def wait() -> Any:
            return await result

        with self._one_at_a_time:
            if self._loop is None or self._loop.is_closed():
                self._loop = asyncio.new_event_loop()
            return self._loop.run_until_complete(wait())


_LOOP = _Loop()
