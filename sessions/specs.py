"""How a person names a task or a reward together with its options: ``NAME key=value key='a value' ...``.

The same words are written on the command line, kept in ``session.toml`` and read by the engine; a settings file says
them as a table. Quotes hold blanks together, and a backslash is a backslash, as regular expressions want it.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sessions.errors import InvalidValue, UnknownName, UsageError
from sessions.paths import expanded

OptionValue = str | int | float | bool
_WHOLES = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")
_WORDS = {
    "switch": "true false",
    "path": "a path",
    "names": "names, with commas",
    "wholes": "whole numbers, such as 2-4 or 2,5",
}
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class Spec:
    """A name and its options as they were written.

    ``str`` gives back words that read as the same spec.
    """

    use: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(_quoted(word) for word in (self.use, *(f"{k}={v}" for k, v in self.options.items())))


def parse_spec(text: str, what: str) -> Spec:
    """Read ``NAME key=value ...``; a text that is the path of something on disk is that path, blanks and all.

    :param what: is being read, such as ``task``, for errors.
    :raises UsageError: if the words cannot be read so.
    """
    if not text.strip() or "\0" in text:
        raise InvalidValue(f"{what} {text!r}: a name is expected, then options as key=value")
    if _exists(text):
        return Spec(text)
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    try:
        use, *words = list(lexer)
    except ValueError as error:
        raise InvalidValue(f"{what} {text!r}: {str(error).lower()}") from None
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidValue(f"{what} {use}: {word!r} should read key=value; put quotes around what holds blanks")
        if key in options:
            raise InvalidValue(f"{what} {use}: {key} is given twice")
        options[key] = value
    return Spec(use, options)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a task or a reward.

    :ivar kind: ``path`` is made absolute where it is checked; ``names`` is a list with commas, ``wholes`` one of whole
        numbers, such as ``1-3,5`` (:func:`wholes`).
    :ivar default: None: it has to be given.
    :ivar low: least value allowed (numbers), inclusive.
    :ivar high: greatest value allowed (numbers), inclusive.
    """

    name: str
    kind: Literal["text", "whole", "number", "switch", "path", "names", "wholes"]
    default: OptionValue | None
    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    def parse(self, given: str, where: str) -> OptionValue:
        """Text as a value.

        :param where: for errors, such as ``task maze``.
        :raises InvalidValue: naming the option, what was given and what is allowed.
        """
        if self.default is not None and given == shown(self.default):
            return self.default
        if self.kind == "switch":
            if given.lower() not in (*_YES, *_NO):
                raise InvalidValue(f"{where}: {self.name} {given!r} is neither true nor false")
            return given.lower() in _YES
        if self.kind in ("whole", "number"):
            return self._number(given, where)
        if self.kind == "wholes":
            return self._wholes(given, where)
        if self.choices and given not in self.choices:
            raise InvalidValue(f"{where}: {self.name} {given!r} is not one of {', '.join(self.choices)}")
        if self.kind == "path":
            return os.path.realpath(expanded(given))  # Path.resolve raises a RuntimeError where links go round
        return given

    def _wholes(self, given: str, where: str) -> str:
        if not _WHOLES.fullmatch(given):
            raise InvalidValue(f"{where}: {self.name} {given!r} should read like 1-4 or 1,3")
        ends = [int(end) for end in re.findall(r"[0-9]+", given)]
        if not all(self.low <= end <= self.high for end in ends):
            raise InvalidValue(f"{where}: {self.name} {given!r} is out of bounds; allowed: {self.range_text}")
        if not wholes(given):
            raise InvalidValue(f"{where}: {self.name} {given!r} names no number; the smaller end comes first")
        return given

    def _number(self, given: str, where: str) -> int | float:
        try:
            number = int(given) if self.kind == "whole" else float(given)
        except ValueError:
            number = math.nan
        if not self.low <= number <= self.high or number in (math.inf, -math.inf):
            raise InvalidValue(f"{where}: {self.name} {given!r} is out of bounds; allowed: {self.range_text}")
        return number

    @property
    def allowed(self) -> str:
        """What it may be, in a few words."""
        if self.kind in ("whole", "number"):
            return self.range_text
        return " ".join(self.choices) or _WORDS.get(self.kind, "text")

    @property
    def range_text(self) -> str:
        """What numbers are allowed, in words."""
        kind = "whole numbers" if self.kind in ("whole", "wholes") else "numbers"
        ends = [f"{word} {end:g}" for word, end in (("from", self.low), ("to", self.high)) if math.isfinite(end)]
        return " ".join([kind, *ends])


@dataclass(frozen=True, slots=True)
class Kind:
    """A task or a reward that is built in.

    :ivar needs: the optional extra that it needs; empty: none.
    :ivar example: words that name it, for the documentation.
    :ivar counterpart: the same in other libraries.
    :ivar check: of all its values together and of what they name; raises UsageError. It gets where, for errors.
    :ivar defaults: hyperparameters that a task of this kind has by itself.
    :ivar others: what options of other names are for, which are then kept as text; empty: they are refused.
    """

    name: str
    help: str
    options: tuple[Option, ...] = ()
    needs: str = ""
    example: str = ""
    counterpart: str = ""
    check: Callable[[Mapping[str, OptionValue], str], None] | None = None
    defaults: Mapping[str, int | float | str] = field(default_factory=dict)
    others: str = ""

    def read(self, spec: Spec, what: str) -> dict[str, OptionValue]:
        """Every option's value: those given, the others at their defaults.

        :param what: is being read, such as ``task``.
        :raises UsageError: naming the option that is unknown, wrong or missing.
        """
        known = {option.name: option for option in self.options}
        where = f"{what} {spec.use}"
        for name in spec.options:
            if name not in known and not self.others:
                raise UnknownName(f"option of {where}:", name, known)
        missing = [o.name for o in self.options if o.default is None and o.name not in spec.options]
        if missing:
            option = known[missing[0]]
            raise UsageError(f"{where}: {option.name} is missing ({option.help}); add {option.name}=...")
        given = {name: known[name].parse(text, where) if name in known else text for name, text in spec.options.items()}
        values = {o.name: o.default for o in self.options if o.default is not None} | given
        if self.check is not None:
            self.check(values, where)
        return values

    def canonical(self, spec: Spec, what: str) -> Spec:
        """The spec with its values checked and its paths absolute, options in the order of the definition.

        Those that say the default are left out, so that equal specs read alike.
        """
        values = self.read(spec, what)
        given = [o.name for o in self.options if o.name in spec.options and values[o.name] != o.default]
        given += [name for name in spec.options if name not in {o.name for o in self.options}]
        return Spec(spec.use, {name: shown(values[name]) for name in given})


def shown(value: OptionValue) -> str:
    """A value as it is written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def short_name(text: str) -> str:
    """What a spec is called where there is little room: a name, or a file's without folder and ending."""
    try:
        use = parse_spec(text, "").use
    except UsageError:
        use = text
    where, colon, function = use.rpartition(":")
    if colon and where.endswith(".py"):
        return function
    return Path(use).stem if "/" in use else use


def kinds(*all_of_them: Kind) -> dict[str, Kind]:
    """Kinds by name."""
    return {kind.name: kind for kind in all_of_them}


def names(value: OptionValue) -> tuple[str, ...]:
    """A list that was written with commas."""
    return tuple(part.strip() for part in str(value).split(",") if part.strip())


def wholes(value: OptionValue) -> tuple[int, ...]:
    """The numbers of ``1-3,5``, each once, in rising order."""
    found: set[int] = set()
    for part in names(value):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def joined(words: Iterable[str]) -> str:
    """Words as one text that :func:`parse_spec` reads apart again."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    """A word that the lexer reads back as it is."""
    if word and not any(c.isspace() or c in "'\"" for c in word):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _exists(text: str) -> bool:
    try:
        return expanded(text).exists()
    except OSError:  # too long for a name
        return False
