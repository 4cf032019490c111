"""The part of JSON Schema (2020-12) that describes answers: types, values, objects, lists and alternatives.

What is not understood is refused rather than passed over, patterns and references among it: a check that looks at less
than it says would reward what it should not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]

_NOTES = {"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "format"}
"""Keywords that assert nothing."""


def compile_schema(schema: Any, where: str = "$") -> Check:
    """What says whether a JSON value is as a schema wants it.

    :param where: of the schema in its document, for errors.
    :raises ValueError: in one line, naming the place and the keyword that is unknown or wrong.
    """
    if isinstance(schema, bool):
        return lambda value: schema
    if not isinstance(schema, dict):
        raise ValueError(f"{where}: a schema is an object, true or false")
    checks = []
    for word, argument in schema.items():
        if word in _NOTES:
            continue
        if word == "additionalProperties":
            checks.append(_others(schema, argument, where))
        elif word in _KEYWORDS:
            checks.append(_KEYWORDS[word](argument, f"{where}.{word}"))
        else:
            known = ", ".join((*_KEYWORDS, "additionalProperties"))
            raise ValueError(f"{where}: the keyword {word!r} is not understood here; known: {known}")
    return lambda value: all(check(value) for check in checks)


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: 1 is 1.0 and is not true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Check] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "number": _is_number,
    "integer": lambda value: _is_number(value) and math.isfinite(value) and value == int(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _type(names: Any, where: str) -> Check:
    listed = names if isinstance(names, list) else [names]
    for name in listed:
        if not isinstance(name, str) or name not in _TYPES:
            raise ValueError(f"{where}: {name!r} is no type; known: {', '.join(_TYPES)}")
    tests = [_TYPES[name] for name in listed]
    return lambda value: any(test(value) for test in tests)


def _enum(values: Any, where: str) -> Check:
    if not isinstance(values, list):
        raise ValueError(f"{where}: a list is expected")
    return lambda value: any(same(value, one) for one in values)


def _const(wanted: Any, where: str) -> Check:
    return lambda value: same(value, wanted)


def _properties(schemas: Any, where: str) -> Check:
    if not isinstance(schemas, dict):
        raise ValueError(f"{where}: an object is expected")
    checks = {name: compile_schema(schema, f"{where}.{name}") for name, schema in schemas.items()}
    return lambda value: (
        not isinstance(value, dict) or all(check(value[name]) for name, check in checks.items() if name in value)
    )


def _others(schema: dict[str, Any], argument: Any, where: str) -> Check:
    check = compile_schema(argument, f"{where}.additionalProperties")
    named = schema.get("properties", {})
    return lambda value: (
        not isinstance(value, dict) or all(check(one) for name, one in value.items() if name not in named)
    )


def _required(names: Any, where: str) -> Check:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: a list of names is expected")
    return lambda value: not isinstance(value, dict) or all(name in value for name in names)


def _items(schema: Any, where: str) -> Check:
    check = compile_schema(schema, where)
    return lambda value: not isinstance(value, list) or all(map(check, value))


def _any_of(schemas: Any, where: str) -> Check:
    if not isinstance(schemas, list) or not schemas:
        raise ValueError(f"{where}: a list of schemas is expected")
    checks = [compile_schema(schema, f"{where}[{i}]") for i, schema in enumerate(schemas)]
    return lambda value: any(check(value) for check in checks)


def _bound(kind: Check, measure: Callable[[Any], float], holds: Callable[[float, float], bool]) -> Any:
    """A keyword that bounds something about values of a kind."""

    def keyword(limit: Any, where: str) -> Check:
        if not _is_number(limit):
            raise ValueError(f"{where}: a number is expected")
        return lambda value: not kind(value) or holds(measure(value), limit)

    return keyword


def _least(a: float, b: float) -> bool:
    return a >= b


def _most(a: float, b: float) -> bool:
    return a <= b


_KEYWORDS: dict[str, Callable[[Any, str], Check]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "properties": _properties,
    "required": _required,
    "items": _items,
    "anyOf": _any_of,
    "minItems": _bound(_TYPES["array"], len, _least),
    "maxItems": _bound(_TYPES["array"], len, _most),
    "minLength": _bound(_TYPES["string"], len, _least),
    "maxLength": _bound(_TYPES["string"], len, _most),
    "minimum": _bound(_is_number, lambda value: value, _least),
    "maximum": _bound(_is_number, lambda value: value, _most),
    "exclusiveMinimum": _bound(_is_number, lambda value: value, lambda a, b: a > b),
    "exclusiveMaximum": _bound(_is_number, lambda value: value, lambda a, b: a < b),
}
