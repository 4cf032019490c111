"""Every key, once: bindings, footer, help and palette are generated from this table.

A scope is a place where keys work: ``global`` (every screen), one screen, or one kind of widget (``list`` for whatever
has rows or text to move through, ``sides`` for two texts, ``chart``). Digits are ratings and nothing else; ctrl+a, b,
s, j, h, i, m and z belong to tmux, screen and flow control, or are aliases of other keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from textual.binding import Binding

from sessions.errors import UnknownName, UsageError
from sessions.modes import MODES


@dataclass(frozen=True, slots=True)
class Action:
    """One thing a key does.

    :ivar id: what the settings file remaps it by.
    :ivar keys: as people write them; the first is the one shown.
    :ivar label: a word or two for the footer.
    :ivar help: one line.
    :ivar action: the method behind it, without ``action_``.
    :ivar scope: where it works.
    :ivar footer: place in the footer, the smallest first; 0: not shown there.
    :ivar palette: whether it makes sense without a cursor, so that the palette offers it.
    """

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    action: str
    scope: str = "global"
    footer: int = 0
    palette: bool = True

    @property
    def changes(self) -> bool:
        """Whether it changes the session, or another one: a screen that only watches does without it."""
        return self.id in _CHANGING or (self.scope == "rate" and self.action.startswith("rate("))


_CHANGING = frozenset(
    [
        "pause", "step", "checkpoint", "acknowledge", "undo", "redo", "stop", "rate.skip", "rate.unskip",
        "rate.comment", "rate.flags", "rate.improve", "parameters.apply", "parameters.fork", "branches.open",
        "branches.rewind", "branches.fork", "branches.rename", "branches.delete", "sessions.new",
        "sessions.delete", "failed.restart",
    ]
)  # fmt: skip


def _rows() -> Iterable[Action]:
    a = Action
    yield a("pause", ("space",), "pause", "pause at the next safe point, or go on", "pause", footer=10)
    yield a("step", (".",), "step", "run exactly one step, then pause", "step", footer=20)
    yield a("checkpoint", ("C",), "checkpoint", "write a checkpoint now", "checkpoint", footer=80)
    yield a(
        "dashboard", ("d",), "dash", "the dashboard: charts and the state of the run", "mode('dashboard')", footer=60
    )
    yield a("samples", ("s",), "samples", "the groups and responses, live", "mode('samples')", footer=61)
    yield a("rate", ("r",), "rate", "rate responses by hand", "mode('rate')", footer=62)
    yield a("parameters", ("p",), "params", "change hyperparameters", "mode('parameters')", footer=63)
    yield a("branches", ("b",), "branches", "the branches: rewind, fork, compare", "mode('branches')", footer=64)
    yield a("events", ("e",), "events", "everything that happened", "mode('events')", footer=65)
    yield a("acknowledge", ("!",), "ack", "acknowledge the alarms", "acknowledge")
    yield a("command", (":",), "command", "the command line: the words of `workbench send`", "command", footer=40)
    yield a("palette", ("ctrl+p",), "palette", "search every action by name", "palette", palette=False)
    yield a("help", ("?",), "help", "the keys that work here; on a chart or a value, what it means", "help", footer=50)
    yield a("undo", ("u",), "undo", "undo: a rating, or the last applied change", "undo")
    yield a("redo", ("ctrl+r",), "redo", "redo what was undone", "redo")
    yield a("copy", ("y",), "copy", "copy to the clipboard (OSC 52)", "copy")
    yield a("pager", ("o",), "open", "open in $PAGER or $EDITOR", "pager")
    yield a(
        "arrange",
        ("w",),
        "arrange",
        "show what is hidden, stack or split panes; hide the hyperparameters that are not used",
        "arrange",
    )
    yield a("next_pane", ("tab",), "next pane", "go to the next pane", "next_pane", palette=False)
    yield a("previous_pane", ("shift+tab",), "previous pane", "go to the previous pane", "previous_pane", palette=False)
    yield a("back", ("escape",), "back", "back; never leaves the program", "back", palette=False)
    yield a("detach", ("q",), "detach", "leave the screen; the training goes on", "detach", footer=90)
    yield a("stop", ("Q",), "stop", "stop the session, after typing the word stop", "stop_session")
    yield a("interrupt", ("ctrl+c",), "", "says what q and Q do", "interrupt", palette=False)

    yield from _moves()
    yield from _sides()
    yield from _charts()
    yield from _rating()
    yield from _replay()

    s = "samples"
    yield a("samples.open", ("enter",), "open", "open the group or the response", "open", s, 29, palette=False)
    difference = "two responses and what differs: J K choose the other, n N the next difference, D leaves"
    yield a("samples.diff", ("D",), "diff", difference, "difference", s, 30, palette=False)
    yield a("samples.follow", ("f",), "follow", "follow the newest group, or hold still", "follow", s, 31)

    p = "parameters"
    yield a("parameters.edit", ("enter",), "edit", "type a new value", "edit", p, 30, palette=False)
    yield a("parameters.up", ("+", "="), "more", "nudge the value up", "nudge(1)", p, palette=False)
    yield a("parameters.down", ("-",), "less", "nudge the value down", "nudge(-1)", p, palette=False)
    yield a("parameters.apply", ("A",), "apply", "apply what is staged, each at its boundary", "apply", p, 31)
    yield a("parameters.discard", ("U",), "discard staged", "forget what is staged", "discard", p, 32)
    yield a("parameters.revert", ("R",), "revert", "stage the value the session started with", "revert", p)
    yield a("parameters.history", ("H",), "history", "every change of this value", "history", p)
    yield a(
        "parameters.fork", ("B",), "branch", "start a branch with what is staged, instead of applying it", "fork", p
    )

    b = "branches"
    yield a(
        "branches.open", ("enter",), "go", "switch to the branch, rewind to the checkpoint, or fork there", "go", b, 30,
        palette=False,
    )  # fmt: skip
    yield a("branches.rewind", ("W",), "rewind", "rewind the branch that is trained to any step", "rewind", b, 31)
    yield a("branches.fork", ("B",), "fork", "start a branch at what is under the cursor", "fork", b, 32)
    yield a("branches.mark", ("v",), "mark", "draw this branch's curve beside the others, or not", "mark", b, 33)
    yield a("branches.compare", ("D",), "compare", "what two branches answer to the probe prompts", "compare", b, 34)
    yield a("branches.choose", ("x",), "metric", "choose the metric of the curves", "choose", b, 36)
    yield a("branches.rename", ("R",), "rename", "give the branch another name", "rename", b)
    yield a("branches.delete", ("X",), "delete", "forget the branch, after typing its name", "delete", b)

    yield a("events.open", ("enter",), "open", "the whole record", "open_event", "events", 30, palette=False)

    yield a(
        "sessions.open", ("enter",), "attach", "attach to this session", "open_session", "sessions", 30, palette=False
    )
    yield a("sessions.new", ("a",), "new", "start a new session", "new_session", "sessions", 31)
    delete = "delete this session, after typing its name"
    yield a("sessions.delete", ("X",), "delete", delete, "delete_session", "sessions", 32)

    yield a("failed.restart", ("R",), "restart", "start again from the last checkpoint", "restart", "dashboard", 5)
    yield a("failed.log", ("L",), "log", "the end of the engine's log", "show_log", "dashboard", 6)


def _moves() -> Iterable[Action]:
    """For every list and every text."""
    for name, keys, text in (
        ("down", ("j", "down"), "down"),
        ("up", ("k", "up"), "up"),
        ("left", ("h", "left"), "left"),
        ("right", ("l", "right"), "right"),
        ("top", ("g", "home"), "to the first"),
        ("bottom", ("G", "end"), "to the last"),
        ("page_down", ("pagedown",), "one page down"),
        ("page_up", ("pageup",), "one page up"),
    ):
        yield Action(f"move.{name}", keys, text, text, f"move('{name}')", "list", palette=False)
    yield Action("list.filter", ("/",), "filter", "filter in place", "filter", "list", 35)
    yield Action("list.next", ("n",), "next match", "the next match", "match(1)", "list", palette=False)
    yield Action("list.previous", ("N",), "previous match", "the match before", "match(-1)", "list", palette=False)


def _sides() -> Iterable[Action]:
    """Two texts that are read against each other, where they scroll together. A replay needs the brackets."""
    s = "sides"
    differences = "mark the words that differ, or not; n N go to the next"
    yield Action("sides.differences", ("D",), "differences", differences, "differences", s, 36, palette=False)
    yield Action("sides.stack", ("w",), "stack", "beside each other, or stacked", "stack", s, 37, palette=False)
    alone = "scroll the {} text alone; again: both"
    yield Action("sides.left", ("[",), "left alone", alone.format("left (or upper)"), "alone(0)", s, 38, palette=False)
    yield Action(
        "sides.right", ("]",), "right alone", alone.format("right (or lower)"), "alone(1)", s, 39, palette=False
    )


def _charts() -> Iterable[Action]:
    for name, keys, label, text, action in (
        ("zoom", ("enter",), "zoom", "this chart alone, or all again", "zoom"),
        ("log", ("y",), "log", "logarithmic axis, or linear", "log"),
        ("smooth", ("S",), "smooth", "smoothing: .9, .98, none", "smooth"),
        ("earlier", ("<",), "", "the crosshair to an earlier step, on every chart", "crosshair(-1)"),
        ("later", (">",), "", "the crosshair to a later step, on every chart", "crosshair(1)"),
        ("window", ("z",), "window", "how many of the last steps: all, 1000, 200, 50", "window"),
        ("values", ("t",), "values", "the values as a table", "values"),
        ("choose", ("x",), "metrics", "choose the metrics of this chart", "choose"),
        ("left", ("h", "left"), "", "to the chart on the left", "go('left')"),
        ("down", ("j", "down"), "", "to the chart below", "go('down')"),
        ("up", ("k", "up"), "", "to the chart above", "go('up')"),
        ("right", ("l", "right"), "", "to the chart on the right", "go('right')"),
    ):
        footer = {"zoom": 30, "log": 31, "smooth": 32, "window": 33, "values": 34}.get(name, 0)
        yield Action(f"chart.{name}", keys, label, text, action, "chart", footer, palette=False)


def _rating() -> Iterable[Action]:
    r = "rate"
    for mode in MODES.values():
        for key, (value, word) in mode.keys.items():
            yield Action(
                f"rate.{mode.name}.{word.replace(' ', '_')}", (key,), word, f"{mode.title}: {word}",
                f"rate('{mode.name}', {value:g})", r, palette=False,
            )  # fmt: skip
    following = "save a half-typed order, or flags; else the next group, the unrated stay so"
    yield Action("rate.next_group", ("enter",), "next group", following, "next_group", r, 30)
    yield Action("rate.next_unrated", ("tab",), "next unrated", "the next unrated question", "next_unrated", r)
    yield Action("rate.previous_unrated", ("shift+tab",), "", "the unrated question before", "previous_unrated", r)
    yield Action(
        "rate.next", ("J",), "response", "the next response; of a pair, the other one", "response(1)", r, palette=False
    )
    yield Action("rate.previous", ("K",), "", "the response before", "response(-1)", r, palette=False)
    yield Action("rate.reveal", ("v",), "reveal", "show reward, advantage and step", "reveal", r, 33)
    yield Action("rate.fold", ("P",), "fold", "fold the prompt, or show all of it", "fold", r)
    yield Action("rate.skip", ("x",), "skip", "say that this one will not be rated", "skip", r, 31)
    yield Action("rate.unskip", ("X",), "un-skip", "take a skip back", "unskip", r)
    yield Action("rate.comment", ("c",), "comment", "one line about this response", "comment", r, 32)
    yield Action(
        "rate.flags", ("f",), "flags", "flags of this response: digits switch them, enter saves", "flags", r, 35
    )
    improve = "write a better text; F2 saves, esc leaves; in the mode edit, o does it in $EDITOR"
    yield Action("rate.improve", ("i",), "edit", improve, "improve", r, 36)
    beside = "this response beside the one shown before, what differs marked; again: alone"
    yield Action("rate.beside", ("D",), "differences", beside, "beside", r, 37)
    yield Action("rate.zoom", ("z",), "read", "of a ranking, read one response in full; again: the list", "zoom", r, 38)
    everything = "offer dead groups too, and those that others have rated; again: not"
    yield Action("rate.everything", ("a",), "all groups", everything, "everything", r, 39)
    yield Action("rate.mode", ("m",), "mode", "the next rating mode", "next_rating_mode", r, 34)
    yield Action("samples.next", ("J",), "response", "the next response", "response(1)", "samples", palette=False)
    yield Action("samples.previous", ("K",), "", "the response before", "response(-1)", "samples", palette=False)


def _replay() -> Iterable[Action]:
    """In the place of the keys that need an engine."""
    r = "replay"
    yield Action(
        "replay.play", ("space",), "play", "play from here, or hold; at the end, from the start", "play", r, 10
    )
    yield Action("replay.back", (",",), "back", "one step back", "along(-1)", r, 11)
    yield Action("replay.on", (".",), "on", "one step on", "along(1)", r, 12)
    yield Action("replay.slower", ("[",), "slower", "play more slowly", "change_pace(-1)", r, 13)
    yield Action("replay.faster", ("]",), "faster", "play faster", "change_pace(1)", r, 14)
    yield Action("replay.before", ("{",), "", "to the mark before: a change, an alarm, a rating", "to_mark(-1)", r)
    yield Action("replay.after", ("}",), "marks", "to the next mark", "to_mark(1)", r, 15)


REPLAY_ACTIONS = frozenset(action.action.partition("(")[0] for action in _replay())
"""What only a replay does."""
NOT_IN_REPLAY = frozenset({"pause", "step"})
"""What gives its keys to those."""

ACTIONS: dict[str, Action] = {action.id: action for action in _rows()}
"""The table. Its order is the order of the help."""

CHANGING = frozenset(action.action for action in ACTIONS.values() if action.changes)
"""The actions, as bindings have them, that change something."""

SCOPES = tuple(dict.fromkeys(action.scope for action in ACTIONS.values()))


def bindings(*scopes: str, without: Iterable[str] = ()) -> list[Binding]:
    """The bindings of scopes, for a class's ``BINDINGS``.

    :param without: ids to leave out, for a screen that has no such thing.
    """
    left_out = set(without)
    return [
        Binding(",".join(named(key) for key in a.keys), a.action, a.label, show=bool(a.footer), id=a.id)
        for a in ACTIONS.values()
        if a.scope in scopes and a.id not in left_out
    ]


FORBIDDEN = frozenset(f"ctrl+{letter}" for letter in "absjhimz") | {"shift+enter", "ctrl+enter"}
"""Keys that tmux, screen or the terminal keep, that are aliases, or that many terminals cannot send."""


def check_keymap(keymap: Mapping[str, str]) -> dict[str, str]:
    """A keymap from the settings file (id -> keys, separated by commas), if it is one.

    :raises UsageError: naming the id or the key that cannot be.
    """
    for name, keys in keymap.items():
        if name not in ACTIONS:
            raise UnknownName("action", name, ACTIONS)
        for key in keys.split(","):
            if key in FORBIDDEN:
                raise UsageError(f"{name}: {key} is taken by tmux, screen or the terminal; choose another key")
            if key.isdigit() and not ACTIONS[name].action.startswith("rate("):
                raise UsageError(f"{name}: digits are ratings; choose another key")
    return dict(keymap)


_NAMES = {
    ".": "full_stop", ":": "colon", "!": "exclamation_mark", "?": "question_mark", "<": "less_than_sign",
    ">": "greater_than_sign", "+": "plus", "-": "minus", "=": "equals_sign", "/": "slash", ",": "comma",
    "[": "left_square_bracket", "]": "right_square_bracket", "{": "left_curly_bracket", "}": "right_curly_bracket",
}  # fmt: skip
_SHOWN = {name: key for key, name in _NAMES.items()} | {"escape": "esc", "pagedown": "pgdn", "pageup": "pgup"}


def named(key: str) -> str:
    """A key as Textual names it."""
    return _NAMES.get(key, key)


def shown(key: str) -> str:
    """A key as people read it: ``full_stop`` as ``.``, ``escape`` as ``esc``."""
    return _SHOWN.get(key, key)
