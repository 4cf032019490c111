"""The page about rating shows the screen as it is: its frames are the golden ones, its table is the modes'."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sessions.modes import MODES
from tests.screens.frames import GOLDEN, UPDATE

PAGE = Path(__file__).parents[2] / "docs" / "rating.md"
_FRAME = re.compile(r"<!-- frame: (\S+) -->\n```\n(.*?)```\n", re.DOTALL)
_MODES = re.compile(r"<!-- modes -->\n(.*?)\n(?=###)", re.DOTALL)
RECORDS = {
    "likert": "`{A: 4}`",
    "thumbs": "`{A: -1}`, `{A: 1}`",
    "pair": "`{A: 1, F: 0}`, 2 for much better, a tie 1 each, both bad 0 each",
    "rank": "`{C: 1, A: 2, B: 2}`: places, the tied share one",
    "edit": "`{A: 1}` and the better text",
    "critique": "`{A: 1}`, the flags and the line",
}


def modes_table() -> str:
    """What each mode asks, records and teaches."""
    rows = []
    for mode in MODES.values():
        keys = [f"`{key}` {word}" for key, (_, word) in mode.keys.items()]
        if mode.name == "rank":
            keys = ["`1`-`9` the next response", *keys[9:]]
        said = ", ".join(keys) or "`i`, or `o` for `$EDITOR`"
        rows.append(f"| {mode.name} | {said} | {RECORDS[mode.name]} | {mode.teaches} |")
    return (
        "\n".join(["| mode | keys | what is recorded | what it teaches |", "| --- | --- | --- | --- |", *rows]) + "\n"
    )


def written(text: str) -> str:
    """The page with the frames and the table as they are now."""
    text = _FRAME.sub(
        lambda match: f"<!-- frame: {match[1]} -->\n```\n{(GOLDEN / f'{match[1]}.txt').read_text('utf-8')}```\n", text
    )
    return _MODES.sub(lambda _: f"<!-- modes -->\n{modes_table()}\n", text)


def test_the_page_about_rating_is_as_the_screen_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(_FRAME.findall(text)) == 6
    if os.environ.get(UPDATE):
        PAGE.write_text(written(text), encoding="utf-8")
        text = written(text)
    assert text == written(text), f"look at it, then {UPDATE}=1"
