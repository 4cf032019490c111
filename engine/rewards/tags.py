"""The reward of a response that keeps to tags, such as ``<think>...</think><answer>...</answer>``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from engine.rewards.component import RewardFunction, Rewards
from engine.rewards.texts import Completion, texts_of


def tagged(tags: Sequence[str], *, rest: bool = True, opened: bool = False, partial: bool = False) -> RewardFunction:
    """1 when every tag opens and closes exactly once, in order, with nothing but blanks before and between them.

    :param rest: whether text may follow the last tag.
    :param opened: whether the prompt ends with the first tag, so that the response begins inside it.
    :param partial: whether the rest counts in parts: each mark (``<think>``, ``</think>``, ...) that stands there
        exactly once is one part, and the rule above another.
    """
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    either = re.compile("|".join(map(re.escape, marks)))
    marks = marks[opened:]

    def one(text: str) -> float:
        found = list(either.finditer(text))
        right = [m.group() for m in found] == marks and clean(text, found)
        if not partial:
            return float(right)
        seen = [m.group() for m in found]
        return (sum(seen.count(mark) == 1 for mark in marks) + right) / (len(marks) + 1)

    def clean(text: str, found: Sequence[re.Match[str]]) -> bool:
        """Whether only blanks stand outside the tags: in every other gap between marks."""
        gaps = zip([0, *(m.end() for m in found)], [*(m.start() for m in found), len(text)], strict=True)
        outside = [text[start:end] for place, (start, end) in enumerate(gaps) if (place + opened) % 2 == 0]
        return not any(gap.strip() for gap in (outside[:-1] if rest else outside))

    def reward(prompts: object, completions: Sequence[Completion], **_: Any) -> Rewards:
        return [one(text) for text in texts_of(completions)]

    return reward
