"""The threads of an engine: its event loop, one that computes, one that writes records, one that writes checkpoints,
and one for what a step must not wait for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")

UNWRITABLE = (OSError, sqlite3.Error)
"""What a full or failing disk raises."""


class Threads:
    """Work handed from the event loop to the other threads, and back."""

    def __init__(self) -> None:
        self._compute = ThreadPoolExecutor(1, "compute")
        self._writer = ThreadPoolExecutor(1, "store")
        self._saver = ThreadPoolExecutor(1, "checkpoints")
        self._aside = ThreadPoolExecutor(1, "aside", initializer=_give_way)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self) -> None:
        """This is the event loop."""
        self._loop = asyncio.get_running_loop()

    async def end(self, last: Callable[[], object]) -> None:
        """Cancel the tasks, wait for all threads, and do one last thing on the store's.

        The compute thread must not be paused.
        """
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, self._compute.shutdown)
        await asyncio.get_running_loop().run_in_executor(None, self._saver.shutdown)
        await asyncio.get_running_loop().run_in_executor(None, self._aside.shutdown)
        await self.write(last)
        self._writer.shutdown()

    async def compute(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run something on the compute thread."""
        return await asyncio.get_running_loop().run_in_executor(self._compute, function, *arguments)

    async def beside(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run something that takes its time on the checkpoints' thread."""
        return await asyncio.get_running_loop().run_in_executor(self._saver, function, *arguments)

    async def aside(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run something that takes its time, at a lower priority than the steps, where the system has one for threads.

        It should end soon after the engine does.
        """
        return await asyncio.get_running_loop().run_in_executor(self._aside, function, *arguments)

    async def write(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run something on the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, function, *arguments)

    def write_now(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run something on the store's thread and wait: for the compute thread only."""
        return self._writer.submit(function, *arguments).result()

    def write_later(self, function: Callable[..., object], *arguments: Any) -> None:
        """Run something on the store's thread, before the session ends; an error goes to the log."""
        self._writer.submit(function, *arguments).add_done_callback(_log_error)

    def soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call something on the event loop, from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def spawn(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task and keep it until it ends."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _give_way() -> None:
    """Lower the priority of this thread; Linux has one for each."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)


def _log_error(future: Future[Any]) -> None:
    error = future.exception()
    if error is not None:
        traceback.print_exception(error)
