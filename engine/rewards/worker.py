"""The process that runs reward functions people bring, started by the engine: ``worker.py REQUESTS ANSWERS LIFE``.

It is two processes. The guard, which runs nothing of anybody's, waits until the runner ends or the engine does (its
end of LIFE closes, also when it is killed), and then ends everything that the runner has started. The runner loads the
functions and calls them: one JSON line in, one out, on pipes of its own; what functions print goes to the engine's
log. Whatever a function does to the runner, the engine loses no more than the answer.

Only the standard library is imported here, and nothing of the workbench: a person's modules may have any names.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import itertools
import json
import math
import os
import reprlib
import select
import signal
import sys
import time
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any

LONGEST_REASON = 300
"""Characters of a reason."""
MOST_LOGGED = 50
"""Metrics that one call may log."""
CLOSED = 4
"""Exit code of a runner whose pipe a function has closed."""
RESERVED = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""What a function is given beside the columns of the data set: TRL's names."""
_DEATH_SIGNAL, _SUBREAPER = 1, 36  # of prctl(2)


class Failed(Exception):
    """A function cannot be used, or has not answered as it should; the message is one line."""


def one_line(text: object) -> str:
    """Anything as one line of bounded length that a terminal cannot be steered by."""
    try:
        line = str(text)[: 20 * LONGEST_REASON]
    except Exception:  # noqa: BLE001 - an exception of the user's may raise when it is shown
        return "(it cannot be shown)"
    line = " ".join("".join(c if c.isprintable() else " " for c in line).split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 2] + ".."


def error_words(error: BaseException, file: str = "") -> str:
    """``ValueError: no digit (rewards.py:12)``: the line is the last one in the file of the function."""
    message = one_line(error)
    where = ""
    with contextlib.suppress(Exception):  # as above; then no line is named
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        where = f" ({os.path.basename(file)}:{lines[-1]})" if file and lines else ""
    name = one_line(type(error).__name__)
    return (f"{name}: {message}" if message else name) + where


def _print_trace(error: BaseException) -> None:
    """The trace through the person's own code, for the log."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    for line in ["Traceback (most recent call last):\n", *traceback.format_list(frames[-20:])]:
        print(line, end="", file=sys.stderr)
    print(error_words(error), file=sys.stderr)


# ------------------------------------------------------------------------------------------------ loading


def load_module(where: str, source: str | None) -> types.ModuleType:
    """A module by name, or by the path of its file with its source.

    :raises Failed: saying in one line why it cannot be loaded, and where.
    """
    try:
        if source is None:
            return importlib.import_module(where)
        return _from_source(where, source)
    except SyntaxError as error:
        raise Failed(f"{error.filename or where}:{error.lineno or 1}: {one_line(error.msg)}") from None
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if source is None and (missing == where or where.startswith(f"{missing}.")):
            found = "modules are looked for where `workbench run` was started"
            raise Failed(f"{where}: there is no module {missing}; {found}") from None
        raise Failed(
            f"{_line_of(error, where)}: {one_line(error)}; install it for the Python that runs the workbench"
        ) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a module does as it is imported
        with contextlib.suppress(BaseException):  # the trace is an extra, and the module may have closed stderr
            _print_trace(error)
        raise Failed(f"{_line_of(error, where)}: importing it raised {error_words(error)}") from None


def _from_source(path: str, source: str) -> types.ModuleType:
    stem = os.path.basename(path).removesuffix(".py")
    name = stem if stem.isidentifier() and stem not in sys.modules and stem not in sys.stdlib_module_names else ""
    name = name or f"reward_file_{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    loader = _Given(name, path)
    loader.source = source
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, typing and pickle look there
    loader.exec_module(module)
    return module


class _Given(importlib.machinery.SourceFileLoader):
    """Loads a file with the source that it had when the engine read it."""

    source = ""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.source, self.path)  # as text: its bytes are not those of the file

    def get_source(self, fullname: str) -> str:
        return self.source


def _line_of(error: BaseException, where: str) -> str:
    """The line of the person's own code at which an import failed."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__ and "<frozen" not in f.name
    ]
    frames = [f for f in frames if not f.filename.startswith("<frozen")]
    own = [f for f in frames if f.filename == where] or frames
    return f"{own[-1].filename}:{own[-1].lineno}" if own else where


def find_function(module: types.ModuleType, name: str, where: str) -> Callable[..., Any]:
    """What a module calls ``name``; dots lead into it.

    :raises Failed: if there is none, or it cannot be called as a reward.
    """
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [n for n in dir(found) if not n.startswith("_") and callable(getattr(found, n, None))]
            near = difflib.get_close_matches(part, known, n=1)
            own = [n for n in known if getattr(getattr(found, n, None), "__module__", None) == module.__name__]
            there = ", ".join((own or known)[:8]) or "nothing that can be called"
            raise Failed(f"{where}: defines no {part}; " + (f"did you mean {near[0]}?" if near else f"it has {there}"))
        found = getattr(found, part)
    if not callable(found):
        raise Failed(f"{where}: {name} is {_article(found)}, which cannot be called")
    if inspect.isclass(found):
        raise Failed(f"{where}: {name} is a class; give an instance of it, such as `{name.lower()} = {name}()`")
    if any(map(inspect.isasyncgenfunction, (found, type(found).__call__))):
        raise Failed(f"{where}: {name} is an async generator; have it return a list of numbers instead")
    return found


def accepted_names(function: Callable[..., Any], name: str, where: str, columns: list[str]) -> list[str] | None:
    """The keyword arguments that a function takes of those there are; None: all.

    :param columns: of the data set.
    :raises Failed: if it needs another argument, or takes no completions.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of code that is no Python
        return None
    given = {*RESERVED, *columns}
    for parameter in parameters:
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if needed and parameter.kind is parameter.POSITIONAL_ONLY:
            raise Failed(f"{where}: {name} takes {parameter.name} by place only; everything is given by name")
        if needed and parameter.name not in given:
            there = ", ".join(sorted(columns)) or "none"
            raise Failed(
                f"{where}: {name} needs an argument {parameter.name}, and the task has no such column (it has {there})"
            )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not {"completions", "completion_ids"} & set(takes):
        raise Failed(f"{where}: {name} takes no completions; a reward is reward(prompts, completions, **kwargs)")
    return takes


def _article(value: object) -> str:
    name = one_line(type(value).__name__)
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


class Function:
    """One reward function, loaded.

    :ivar file: in which its module is; empty where it has none.
    :ivar code: a hash of that file; empty where it has none.
    """

    def __init__(self, name: str, where: str, source: str | None, columns: list[str]) -> None:
        module = load_module(where, source)
        self.function = find_function(module, name, where)
        self.accepts = accepted_names(self.function, name, where, columns)
        self.file = where if source is not None else str(getattr(module, "__file__", None) or "")
        self.code = code_of(source.encode() if source is not None else _content(self.file))

    def __call__(self, arguments: dict[str, Any]) -> Any:
        if self.accepts is not None:
            arguments = {name: value for name, value in arguments.items() if name in self.accepts}
        return self.function(**arguments)


def code_of(content: bytes) -> str:
    """A hash of source code, short enough to be read."""
    return hashlib.sha256(content).hexdigest()[:12] if content else ""


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


# ------------------------------------------------------------------------------------------------ answers


def values_of(result: Any, count: int) -> tuple[list[float | None], dict[str, str]]:
    """What a function returned, as numbers.

    :param count: of completions.
    :returns: one number or None a completion, and place -> reason for those that are no finite number.
    :raises Failed: if it is no list of that length.
    """
    if not isinstance(result, list | tuple) and callable(getattr(result, "tolist", None)):
        result = result.tolist()  # of numpy or torch
    wanted = "a list with one number for each completion is expected"
    if result is None:
        raise Failed(f"returned None; {wanted}")
    if isinstance(result, str | bytes | bytearray | Mapping | set | frozenset) or not hasattr(result, "__iter__"):
        raise Failed(f"returned {_article(result)}; {wanted}")
    values = list(itertools.islice(result, count + 1))
    if len(values) != count:
        more = f"more than {count}" if len(values) > count else len(values)
        many = len(result) if hasattr(result, "__len__") else more
        raise Failed(f"returned {many} values for {count} completions")
    numbers: list[float | None] = []
    wrong: dict[str, str] = {}
    for place, value in enumerate(values):
        number = None if value is None else finite(value)
        if value is not None and number is None:
            wrong[str(place)] = f"returned {one_line(reprlib.repr(value))}, which is not a finite number"
        numbers.append(number)
    return numbers, wrong


def finite(value: Any) -> float | None:
    """What a function gave as a number; None: it is none, or not finite."""
    if isinstance(value, str | bytes | bytearray | complex):
        return None
    try:
        number = float(value)
    except Exception:  # noqa: BLE001 - it may be anything, with a __float__ of its own
        return None
    return number if math.isfinite(number) else None


class Logged:
    """``log_metric`` and ``log_extra`` of one call."""

    def __init__(self) -> None:
        self.metrics: list[tuple[str, float]] = []

    def metric(self, name: str, value: Any) -> None:
        """TRL's ``log_metric``: one number of this call."""
        number = finite(value)
        if number is not None and len(self.metrics) < MOST_LOGGED:
            self.metrics.append((one_line(name)[:80], number))

    def extra(self, column: str, values: Any) -> None:
        """TRL's ``log_extra``: it is taken and not kept."""


# ------------------------------------------------------------------------------------------------ the runner


class Runner:
    """Answers the engine's requests, one at a time."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._identity = os.fstat(answers)[:3]
        self._pid = os.getpid()
        self._functions: list[Function] = []
        self._loop: Any = None

    def serve(self) -> None:
        """Answer until the engine hangs up."""
        with os.fdopen(self._requests, "rb") as requests:
            self._tell({"pid": self._pid})
            for line in requests:
                request = json.loads(line)
                answer = self._answer(request)
                if os.getpid() != self._pid:  # a function forked, and this is the child
                    os._exit(0)
                self._tell({"id": request["id"], **answer})

    def _tell(self, answer: dict[str, Any]) -> None:
        try:
            same = os.fstat(self._answers)[:3] == self._identity
        except OSError:
            same = False
        if not same:  # a function has closed the pipe, and its number may be another file's by now
            os._exit(CLOSED)
        line = json.dumps(answer).encode() + b"\n"
        while line:
            line = line[os.write(self._answers, line) :]

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        file = ""
        try:
            if request["do"] == "load":
                return self._load(request)
            function = self._functions[request["at"]]
            file = function.file
            return self._call(function, request)
        except Failed as error:
            return {"failed": str(error)}
        except BaseException as error:  # noqa: BLE001 - user code may raise anything
            with contextlib.suppress(BaseException):  # the trace is an extra; the answer says what was raised
                _print_trace(error)
            return {"failed": f"raised {error_words(error, file)}"}
        finally:
            with contextlib.suppress(BaseException):  # a function may have put anything in the place of either
                sys.stdout.flush()
                sys.stderr.flush()

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        for folder in reversed(request["path"]):
            if folder not in sys.path:
                sys.path.insert(0, folder)
        modules: list[Function] = []
        for wanted in request["functions"]:
            try:
                modules.append(Function(wanted["function"], wanted["where"], wanted["source"], request["columns"]))
            except Failed as error:
                return {"failed": str(error), "name": wanted["name"]}
        self._functions = modules
        return {"code": [function.code for function in modules]}

    def _call(self, function: Function, request: dict[str, Any]) -> dict[str, Any]:
        logged = Logged()
        given = request["arguments"]
        result = function(
            {
                **given,
                "trainer_state": types.SimpleNamespace(**request["state"]),
                "log_extra": logged.extra,
                "log_metric": logged.metric,
            }
        )
        if inspect.isawaitable(result):
            result = self._wait_for(result)
        values, wrong = values_of(result, len(given["completions"]))
        return {"values": values, "wrong": wrong, "metrics": logged.metrics}

    def _wait_for(self, result: Any) -> Any:
        """What an async function gives; one loop for all calls, as clients that are kept open need it."""
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()

        async def wait() -> Any:
            return await result

        return self._loop.run_until_complete(wait())


# ------------------------------------------------------------------------------------------------ the guard


def _prctl(option: int, value: int) -> None:
    """Set what Linux has for processes; nothing elsewhere."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def guard(runner: int, life: int, woken: int) -> int:
    """Wait until the runner or the engine has ended, then end all that is left.

    :param woken: gets a byte when a child has ended.
    :returns: the runner's exit code; 128 and the signal's number where a signal ended it.
    """
    code = None
    while code is None:
        code = _reap(runner)
        if code is None:
            ready, _, _ = select.select([life, woken], [], [])
            if life in ready:
                break
            os.read(woken, 512)
    for _ in range(200):
        children = _children()
        for child in children if code is not None else {*children, runner}:  # the runner also where nothing lists it
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        found = _reap(runner)
        code = found if code is None else code
        if not children and code is not None:
            break
        time.sleep(0.005)
    return code or 0


def _reap(runner: int) -> int | None:
    """Collect children that have ended; the runner's exit code if it is one of them."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                break
            if child == runner:
                code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return code


def _children() -> list[int]:
    """Processes whose parent this is: on Linux those too whose own has ended."""
    me, found = str(os.getpid()), []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                    if file.read().rpartition(b")")[2].split()[1].decode() == me:
                        found.append(int(name))
    return found


def main(requests: int, answers: int, life: int) -> None:
    """Split into guard and runner."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prctl(_SUBREAPER, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    before = signal.set_wakeup_fd(wake)
    parent = os.getpid()
    runner = os.fork()
    if runner:
        os.close(requests)
        os.close(answers)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os._exit(guard(runner, life, woken))
    signal.set_wakeup_fd(before)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (woken, wake, life):
        os.close(number)
    _prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, this goes and not the engine
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    sys.argv = ["reward"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    Runner(requests, answers).serve()
    os._exit(0)  # not held up by threads that are left


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
