"""Changes of hyperparameters before and after they are applied: staged, sent, undone. No Textual in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from screens.switching import followers, steered, used
from sessions.commands import Fork, Set
from sessions.errors import UsageError
from sessions.hyperparameters import (
    HYPERPARAMETERS,
    NONE,
    Value,
    check_together,
    hyperparameter,
    switched,
)
from sessions.records import Change


@dataclass(frozen=True, slots=True)
class Staged:
    """A value that is not applied yet, and the value that it should replace."""

    value: Value
    expect: Value


Together = tuple[Change, ...]
"""The changes of one command."""


class Staging:
    """What one person has staged, sent and can undo.

    :param values: the values in force, read and never changed.
    :param changes: every change known, oldest first.
    """

    def __init__(self, who: str, values: Callable[[], Mapping[str, Value]], changes: Callable[[], Iterable[Change]]):
        self.who = who
        self.values = values
        self.changes = changes
        self.staged: dict[str, Staged] = {}
        self.redoable: list[Together] = []
        self._undone: set[str] = set()
        self._echoes: set[str] = set()
        self._sent: dict[str, tuple[str, Together]] = {}

    # ---- staging

    def due(self) -> dict[str, Value]:
        """Every value in force, or on its way there."""
        values = {name: knob.default for name, knob in HYPERPARAMETERS.items()} | dict(self.values())
        return values | {change.name: change.new for change in self.changes() if change.status == "pending"}

    def now(self, name: str) -> Value:
        """The value in force, or on its way there."""
        return self.due()[name]

    def candidate(self, name: str) -> Value:
        """The staged value, else the one that follows from what is staged, else the one in force."""
        return self.ahead()[name]

    def ahead(self) -> dict[str, Value]:
        """Every value once what is staged has been applied, with what follows from it."""
        due = self.due()
        return due | switched(due, {name: staged.value for name, staged in self.staged.items()})

    def following(self) -> dict[str, Value]:
        """What follows by itself from what is staged."""
        return followers(self.due(), {name: staged.value for name, staged in self.staged.items()})

    def stage(self, name: str, given: object) -> Value:
        """Stage a value; the one in force unstages, unless another would follow by itself.

        :raises UsageError: if the knob refuses it.
        """
        knob = hyperparameter(name)
        if knob.boundary == "restart":
            raise UsageError(f"{name} cannot change in a running session; start a new one")
        value, now = knob.parse(given), self.now(name)
        self.staged.pop(name, None)
        if value != self.ahead()[name]:
            self.staged[name] = Staged(value, now)
        return value

    def nudge(self, name: str, direction: int) -> Value:
        """Stage the value one step away; below the least of an optional number is ``none``."""
        knob, value = hyperparameter(name), self.candidate(name)
        nudged = knob.nudged(value, direction)
        if knob.optional and direction < 0 and nudged == value:
            nudged = NONE
        return self.stage(name, nudged)

    def discard(self) -> int:
        """Forget what is staged; how much it was."""
        count = len(self.staged)
        self.staged.clear()
        return count

    def on_another_branch(self) -> None:
        """What is staged stays so, over the values in force there; what was undone before is of another branch."""
        for name, staged in list(self.staged.items()):
            now = self.now(name)
            if staged.value == now:
                del self.staged[name]
            else:
                self.staged[name] = Staged(staged.value, now)
        self.redoable.clear()

    def apply(self) -> Set | None:
        """Everything staged as one command; what is staged stays until the engine accepts.

        :raises UsageError: if the values do not go together.
        """
        if not self.staged:
            return None
        check_together(self.ahead())
        due = self.due()
        expect = {name: staged.expect for name, staged in self.staged.items() if not steered(name, due)}
        return Set(who=self.who, values={name: s.value for name, s in self.staged.items()}, expect=expect)

    def accepted(self, command: Set | Fork) -> None:
        """The engine took a command: what it set, or began a branch with, is no longer staged."""
        for name, value in command.values.items():
            if name in self.staged and self.staged[name].value == value:
                del self.staged[name]

    # ---- who reads what

    def reads(self, algorithm: str) -> set[str]:
        """The knobs that are used by the algorithm, or by the staged one."""
        ahead = self.ahead()
        if "algorithm" not in self.staged and algorithm:
            ahead["algorithm"] = algorithm
        return used(ahead)

    def used_otherwise(self) -> bool:
        """Whether what is staged changes which knobs are used."""
        return bool(self.staged) and used(self.due()) != used(self.ahead())

    # ---- undo

    def undoable(self) -> list[Together]:
        """What ``undo`` can take back, oldest first: the changes of each command, without those of an undo."""
        together: dict[str, list[Change]] = {}
        for change in self.changes():
            key = _key(change)
            if change.status != "superseded" and key not in self._undone and key not in self._echoes:
                together.setdefault(key, []).append(change)
        return [tuple(changes) for changes in together.values()]

    def undo(self) -> Set | None:
        """Set back what the last command changed, all of it; None if there is nothing to undo."""
        groups = self.undoable()
        if not groups:
            return None
        group = groups[-1]
        newest = {change.name: change.id for change in self.changes() if change.status != "superseded"}
        # What nobody changed since is where the engine has steered it.
        expect = {c.name: self.now(c.name) if newest[c.name] == c.id else c.new for c in group}
        command = self._set({c.name: c.old for c in group}, expect)
        self._undone.add(_key(group[0]))
        self.redoable.append(group)
        self._echoes.add(command.id)
        self._sent[command.id] = "undo", group
        return command

    def redo(self) -> Set | None:
        """Set again what was undone last."""
        if not self.redoable:
            return None
        group = self.redoable.pop()
        command = self._set({c.name: c.new for c in group}, {c.name: c.old for c in group})
        ids = {change.id for change in group}
        if not any(c.id in ids and c.status == "superseded" for c in self.changes()):
            # What comes of it is an echo of the first time, which can be undone again.
            self._undone.discard(_key(group[0]))
            self._echoes.add(command.id)
        self._sent[command.id] = "redo", group
        return command

    def _set(self, values: dict[str, Value], expect: Mapping[str, Value]) -> Set:
        """A command that sets these and nothing else: what would follow by itself is held where it is."""
        due = self.due()
        held = {name: due[name] for name in followers(due, values)}
        kept = {name: value for name, value in expect.items() if not steered(name, due)}
        return Set(who=self.who, values={**values, **held}, expect=kept)

    def rejected(self, command: Set) -> None:
        """The engine refused an undo or redo: it can be tried again."""
        word, group = self._sent.pop(command.id, ("", ()))
        if word == "undo" and group in self.redoable:
            self.redoable.remove(group)
            self._undone.discard(_key(group[0]))
        elif word == "redo":
            self.redoable.append(group)
            self._undone.add(_key(group[0]))


def _key(change: Change) -> str:
    return change.command or change.id
