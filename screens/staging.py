"""Changes of hyperparameters before and after they are applied: staged, sent, undone. No Textual in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from screens.widgets.line_table import Column, Row
from sessions.commands import Set
from sessions.errors import UsageError
from sessions.hyperparameters import HYPERPARAMETERS, Hyperparameter, Value, check_together, hyperparameter
from sessions.records import Change

COLUMNS = (
    Column("name", 24, narrow=23),
    Column("now", 14, narrow=8),
    Column("staged", 16, narrow=9),
    Column("range", 0),
    Column("applies", 10, narrow=9),
    Column("changed", 20, narrow=10),
)


@dataclass(frozen=True, slots=True)
class Staged:
    """A value that is not applied yet, and the value that it should replace."""

    value: Value
    expect: Value


class Staging:
    """What one person has staged, sent and can undo.

    :param values: the values in force, read and never changed.
    :param changes: every change known, by id.
    """

    def __init__(self, who: str, values: Callable[[], Mapping[str, Value]], changes: Callable[[], Iterable[Change]]):
        self.who = who
        self._values = values
        self._changes = changes
        self.staged: dict[str, Staged] = {}
        self.redoable: list[Change] = []
        self._undone: set[str] = set()
        self._echoes: list[tuple[str, Value, Value]] = []
        self._echo_ids: set[str] = set()

    # ---- staging

    def now(self, name: str) -> Value:
        """The value in force, or on its way there."""
        pending = [c for c in self._changes() if c.name == name and c.status == "pending"]
        return pending[-1].new if pending else self._values().get(name, HYPERPARAMETERS[name].default)

    def candidate(self, name: str) -> Value:
        """The staged value, else the one in force."""
        return self.staged[name].value if name in self.staged else self.now(name)

    def stage(self, name: str, given: object) -> Value:
        """Stage a value; the one in force unstages.

        :raises UsageError: if the knob refuses it.
        """
        knob = hyperparameter(name)
        if knob.boundary == "restart":
            raise UsageError(f"{name} cannot change in a running session; start a new one")
        value = knob.parse(given)
        if value == self.now(name):
            self.staged.pop(name, None)
        else:
            self.staged[name] = Staged(value, self.now(name))
        return value

    def nudge(self, name: str, direction: int) -> Value:
        """Stage the value one step away."""
        return self.stage(name, hyperparameter(name).nudged(self.candidate(name), direction))

    def discard(self) -> int:
        """Forget what is staged; how much it was."""
        count = len(self.staged)
        self.staged.clear()
        return count

    def apply(self) -> Set | None:
        """Everything staged as one command; what is staged stays until the engine accepts.

        :raises UsageError: if the values do not go together.
        """
        if not self.staged:
            return None
        values = {name: staged.value for name, staged in self.staged.items()}
        check_together({**{n: k.default for n, k in HYPERPARAMETERS.items()}, **self._values(), **values})
        return Set(who=self.who, values=values, expect={name: s.expect for name, s in self.staged.items()})

    def accepted(self, command: Set) -> None:
        """The engine took a command: what it set is no longer staged."""
        for name, value in command.values.items():
            if name in self.staged and self.staged[name].value == value:
                del self.staged[name]

    # ---- undo

    def undoable(self) -> list[Change]:
        """Changes that ``undo`` can take back, oldest first; those that undid others are not among them."""
        self._match_echoes()
        return [
            c for c in self._changes()
            if c.status != "superseded" and c.id not in self._undone and c.id not in self._echo_ids
        ]  # fmt: skip

    def _match_echoes(self) -> None:
        for change in self._changes():
            echo = (change.name, change.old, change.new)
            if change.id not in self._echo_ids and change.id not in self._undone and echo in self._echoes:
                self._echoes.remove(echo)
                self._echo_ids.add(change.id)

    def undo(self) -> Set | None:
        """Set the value back that the last change replaced; None if there is nothing to undo."""
        changes = self.undoable()
        if not changes:
            return None
        change = changes[-1]
        self._undone.add(change.id)
        self.redoable.append(change)
        # Taking a pending change back only supersedes it: no change comes of that.
        return self._send(change.name, change.new, change.old, echo=change.status != "pending")

    def redo(self) -> Set | None:
        """Set again what was undone last."""
        if not self.redoable:
            return None
        change = self.redoable.pop()
        superseded = any(c.id == change.id and c.status == "superseded" for c in self._changes())
        if not superseded:
            self._undone.discard(change.id)  # what comes of it is an echo of this change, which can be undone again
        return self._send(change.name, change.old, change.new, echo=not superseded)

    def _send(self, name: str, old: Value, new: Value, *, echo: bool) -> Set:
        if echo:
            self._echoes.append((name, old, new))
        return Set(who=self.who, values={name: new}, expect={name: old})

    def rejected(self, command: Set) -> None:
        """The engine refused an undo or redo: nothing was undone."""
        for name, new in command.values.items():
            echo = (name, command.expect.get(name, new), new)
            if echo in self._echoes:
                self._echoes.remove(echo)
                undone = [c for c in self.redoable if (c.name, c.new, c.old) == echo]
                for change in undone[-1:]:
                    self.redoable.remove(change)
                    self._undone.discard(change.id)

    # ---- drawing

    def rows(self, algorithm: str) -> list[Row]:
        """The table: every knob, with ``!`` beside a value that the running algorithm does not use."""
        changes: dict[str, Change] = {c.name: c for c in self._changes() if c.status != "superseded"}
        return [self._row(knob, algorithm, changes.get(knob.name)) for knob in HYPERPARAMETERS.values()]

    def _row(self, knob: Hyperparameter, algorithm: str, change: Change | None) -> Row:
        used = not algorithm or knob.used_by(algorithm)
        value = self._values().get(knob.name, knob.default)
        staged = f"{knob.show(self.staged[knob.name].value)} *" if knob.name in self.staged else ""
        if not staged and change is not None and change.status == "pending":
            staged = f"-> {knob.show(change.new)}"
        changed = "@0"
        if change is not None:
            when = f"@{change.applied_step}" if change.status == "applied" else "due"
            changed = f"{when} {change.who}"
        cells = (
            knob.name, knob.show(value) + ("" if used else " !"), staged, knob.range_text, knob.boundary, changed
        )  # fmt: skip
        return Row(knob.name, cells, "accent" if staged else "" if used else "dim")

    def effect(self) -> list[str]:
        """What applying would do, a line for each staged value."""
        return [
            f"{name} {hyperparameter(name).show(staged.expect)} -> {hyperparameter(name).show(staged.value)}  "
            f"next {hyperparameter(name).boundary}{_note(name, staged)}"
            for name, staged in self.staged.items()
        ]


def _note(name: str, staged: Staged) -> str:
    if name == "learning_rate":
        return ", keeps the optimizer state"
    numbers = (staged.expect, staged.value)
    if name in ("group_size", "prompts_per_step", "max_new_tokens"):
        old, new = (float(number) for number in numbers)
        return f", up to {new / old:.2g} x the tokens of a step" if old else ""
    if name == "kl_coefficient" and staged.value == 0:
        return ", measured every reference_every steps only"
    if name == "rating_gate" and staged.value != "async":
        return ", a step then waits for your ratings"
    return ""


def describe_change(change: Change) -> str:
    """One line of the history: ``3e-6 -> 1e-6  applied @640  you``."""
    knob = hyperparameter(change.name)
    if change.status == "applied":
        when = f"applied @{change.applied_step}"
    elif change.status == "pending":
        when = f"due at the next {change.boundary}"
    else:
        when = "superseded before it applied"
    return f"{change.name} {knob.show(change.old)} -> {knob.show(change.new)}   {when}   {change.who}"
