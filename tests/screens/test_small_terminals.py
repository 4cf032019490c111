"""The screens in the least terminal that is served: nothing essential is cut off."""

from __future__ import annotations

import pytest

from tests.screens.conftest import Attach
from tests.screens.frames import until_shown


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("s", ["> 120.4", "> A", "dead", "120 tok"]),
        ("r", ["group 1 ", "1 bad", "5 great", "It waits"]),
        ("p", ["> algorithm", "lr_warmup_steps", "What turns rewards into an update"]),
        ("e", ["checkpoint of step 120", "kl/k3 jump"]),
    ],
)
async def test_60x16(attach: Attach, key: str, texts: list[str]) -> None:
    async with attach(size=(60, 16)) as (app, pilot):
        await pilot.press(key)
        text = await until_shown(app, *texts)
        assert all(len(line) <= 60 for line in text.splitlines())
        assert len(text.splitlines()) == 16


async def test_without_colour_the_cursor_is_still_marked(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with attach() as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "> 120.4", "> A")


async def test_ascii_marks_write_escapes(attach: Attach, engine: object) -> None:
    engine.groups[120, 4].responses[0].text = "a\x1b[2J"  # type: ignore[attr-defined]
    async with attach(marks="ascii") as (app, pilot):
        await pilot.press("s")
        await until_shown(app, "a\\x1b[2J", "+- groups")
