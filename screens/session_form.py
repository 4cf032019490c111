"""The form that starts a session: model, task, algorithm, with the defaults filled in."""

from __future__ import annotations

import shlex
from typing import Any, ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from screens.safe import visible
from sessions.errors import WorkbenchError
from sessions.folders import check_session_name
from sessions.hyperparameters import HYPERPARAMETERS, parse_assignment
from sessions.paths import expanded
from sessions.records import SessionSettings
from sessions.run_settings import combined
from sessions.settings_file import read_settings_file

_FIELDS = (
    ("model", "model", "tiny, or a name or a path"),
    ("task", "task", "arithmetic, or a file of prompts"),
    ("algorithm", "algorithm", "|".join(HYPERPARAMETERS["algorithm"].choices)),
    ("steps", "steps", "0: until stopped"),
    ("name", "name", "empty: the task with a number"),
    ("sets", "settings", "such as learning_rate=1e-5 group_size=16"),
    ("warm_up", "warm-up", "none, or FILE.jsonl epochs=1 learning_rate=2e-5 batch=32"),
    ("file", "file", "none, or settings in FILE.toml; what is changed above wins"),
)
_WARM_UP: dict[str, type[int] | type[float]] = {"epochs": int, "learning_rate": float, "batch": int}


class SessionForm(ModalScreen[SessionSettings]):
    """tab and the arrows move, enter starts, esc leaves.

    :param settings: what the fields hold at first.
    :param problem: why these settings did not start a session.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "back"),
        Binding("down", "app.focus_next", "next", show=False),
        Binding("up", "app.focus_previous", "previous", show=False),
    ]
    DEFAULT_CSS = """
    SessionForm { align: center middle; }
    SessionForm > Vertical { width: 70; max-width: 95%; height: auto; }
    SessionForm Horizontal { height: 1; }
    SessionForm .name { width: 12; }
    SessionForm Input { width: 1fr; height: 1; border: none; }
    SessionForm #wrong { color: $text-error; height: auto; }
    """

    def __init__(self, settings: SessionSettings | None = None, problem: str = "") -> None:
        super().__init__()
        self._settings = settings or SessionSettings(name="")
        self._filled = fields_of(self._settings)
        self._problem = problem

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "a new session"
            box.border_subtitle = "tab next   enter start   esc back"
            for key, label, hint in _FIELDS:
                with Horizontal():
                    yield Static(label, classes="name", markup=False)
                    yield Input(self._filled[key], placeholder=hint, compact=True, id=f"field-{key}")
            yield Static(visible(self._problem), id="wrong", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        given = {key: self.query_one(f"#field-{key}", Input).value.strip() for key, _, _ in _FIELDS}
        try:
            self.dismiss(settings_of(given, self._settings))
        except (WorkbenchError, ValueError) as error:
            self.query_one("#wrong", Static).update(visible(str(error)))  # it may quote what a file holds

    def action_leave(self) -> None:
        self.dismiss(None)


def fields_of(settings: SessionSettings) -> dict[str, str]:
    """The form's fields that say these settings."""
    name = "algorithm="
    chosen = [text.removeprefix(name) for text in settings.sets if text.startswith(name)]
    return {
        "file": "",
        "model": settings.model,
        "task": settings.task,
        "algorithm": chosen[-1] if chosen else str(HYPERPARAMETERS["algorithm"].default),
        "warm_up": _warm_up_words(settings),
        "steps": str(settings.steps),
        "name": settings.name,
        "sets": shlex.join(text for text in settings.sets if not text.startswith(name)),
    }


def _warm_up_words(settings: SessionSettings) -> str:
    """``sums.jsonl epochs=2``: the file, and what is not as it is by itself."""
    plain = SessionSettings(name="")
    named = {name: (getattr(settings, f"warm_up_{name}"), getattr(plain, f"warm_up_{name}")) for name in _WARM_UP}
    words = [f"{name}={now}" for name, (now, usual) in named.items() if now != usual]
    return shlex.join([settings.warm_up, *words]) if settings.warm_up else ""


def _warm_up_of(text: str) -> dict[str, str | int | float]:
    """The settings that such words say.

    :raises ValueError: naming the word that is wrong.
    """
    path, *rest = shlex.split(text) or [""]
    found: dict[str, str | int | float] = {"warm_up": path}
    for word in rest:
        name, _, value = word.partition("=")
        if name not in _WARM_UP:
            raise ValueError(f"warm-up: {word!r} is none of {', '.join(f'{known}=' for known in _WARM_UP)}")
        try:
            found[f"warm_up_{name}"] = _WARM_UP[name](value)
        except ValueError:
            raise ValueError(f"warm-up: {word!r} does not give a number") from None
    return found


def settings_of(given: dict[str, str], tried: SessionSettings | None = None) -> SessionSettings:
    """The settings that the form's fields say, and those that have none as they were.

    :param tried: what the fields were filled from.
    :raises WorkbenchError: naming the field that is wrong.
    :raises ValueError: if the number of steps is not one, or quotes are not closed.
    """
    if given["name"]:
        check_session_name(given["name"])
    steps = given["steps"] or "0"
    if not steps.isdigit():
        raise ValueError(f"steps: {steps!r} is not a whole number")
    sets = shlex.split(given["sets"])
    if given["algorithm"] and given["algorithm"] != HYPERPARAMETERS["algorithm"].default:
        sets.insert(0, f"algorithm={given['algorithm']}")
    for text in sets:
        parse_assignment(text)
    plain = SessionSettings(name="")
    said: dict[str, Any] = {"steps": int(steps), "sets": sets}
    said |= {f"warm_up_{name}": getattr(plain, f"warm_up_{name}") for name in _WARM_UP}
    said |= _warm_up_of(given.get("warm_up", ""))
    said |= {"name": given["name"], "model": given["model"] or plain.model, "task": given["task"] or plain.task}
    if not given.get("file"):
        return msgspec.structs.replace(tried or plain, **said)
    file = read_settings_file(expanded(given["file"]))
    changed = {name: value for name, value in said.items() if value != getattr(plain, name)}
    return msgspec.structs.replace(plain, **combined(file.given, changed))
