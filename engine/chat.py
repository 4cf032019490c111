"""What a chat template makes of messages, and what it is known to do: found out by trying it.

Templates are programs of the model's maker. Some refuse a system message or leave it out; most close a message with a
token of their own, which need not be the one that the model's configuration calls its end.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from engine.words import one_line
from sessions.errors import UsageError

_MARK = "workbench mark"

SECONDS = 20.0
"""That a template may take for one short message, on a slow machine."""

Message = Mapping[str, Any]


def check_template(tokenizer: Any) -> None:
    """Try a template on one message of the user's.

    :raises UsageError: if it refuses that, leaves out what the user says, or does not end.
    """
    made: list[str] = []
    failures: list[UsageError] = []

    def work() -> None:
        try:
            made.append(render(tokenizer, [{"role": "user", "content": _MARK}], merges_system=False, answer=True))
        except UsageError as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="chat template", daemon=True)
    thread.start()
    thread.join(SECONDS)
    remedy = "mend chat_template in its tokenizer_config.json, or give plain text with --no-chat-template"
    if thread.is_alive():
        raise UsageError(f"the model's chat template has not ended after {SECONDS:g} s; {remedy}")
    if failures:
        raise failures[0]
    if _MARK not in made[0]:
        raise UsageError(f"the model's chat template leaves out what the user says; {remedy}")


def render(tokenizer: Any, messages: Sequence[Message], *, merges_system: bool, answer: bool) -> str:
    """Messages as the model's text.

    :param merges_system: a system message at the beginning becomes the first paragraph of the user's.
    :param answer: whether what opens an answer follows.
    :raises UsageError: if the template refuses them.
    """
    given = merged(messages) if merges_system else [dict(message) for message in messages]
    try:
        return str(tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=answer))
    except Exception as error:  # noqa: BLE001 - a template raises what it likes
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise UsageError(
            f"the model's chat template refuses messages of {roles} ({one_line(error)}); give prompts with other "
            "roles, or plain text with --no-chat-template"
        ) from None


def merged(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A system message at the beginning, with a blank line, before the user's message that follows it."""
    given = [dict(message) for message in messages]
    if len(given) < 2 or given[0].get("role") != "system" or given[1].get("role") != "user":
        return given
    system, user, *rest = given
    return [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest]


def must_merge_system(tokenizer: Any) -> bool:
    """Whether a template refuses system messages, or leaves out what they say."""
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "system", "content": _MARK}, {"role": "user", "content": "?"}],
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception:  # noqa: BLE001 - a template raises what it likes
        return True
    return _MARK not in str(text)


def end_of_turn(tokenizer: Any) -> int | None:
    """The token of its own that a template closes an answer with, such as ``<|im_end|>``; None if it has none."""
    try:
        text = str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}], tokenize=False
            )
        )
    except Exception:  # noqa: BLE001 - a template raises what it likes
        return None
    _, found, after = text.rpartition(_MARK)
    tokens = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"] if found and after.strip() else []
    if not tokens:
        return None
    named = {int(token) for token in tokenizer.all_special_ids} | {
        int(token) for token in getattr(tokenizer, "added_tokens_decoder", {})
    }
    return int(tokens[0]) if tokens[0] in named else None
