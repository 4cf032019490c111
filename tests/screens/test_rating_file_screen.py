"""A plain file on the rating screen: rated, undone, left, come back to; nothing of the training is there."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.help import help_lines
from screens.palette import actions_here
from screens.rate import RateScreen
from screens.rate_body import response_shown
from screens.sample_rows import number
from sessions import commands as c
from sessions.judging import standing
from sessions.rating_file import RatingFile, read_rated
from tests.screens.frames import frame, until, until_shown

ROWS = [
    {"prompt": f"question {i}", "responses": [f"answer {i} {x} \x1b[31m[bold]" for x in "abc"], "rewards": [1, 0.5, 0]}
    for i in range(1, 4)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "answers.jsonl"
    made.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return made


@asynccontextmanager
async def rating(
    path: Path, size: tuple[int, int] = (100, 30), **options: Any
) -> AsyncIterator[tuple[WorkbenchApp, Pilot[str]]]:
    file = RatingFile(path, "ann", options.pop("output", None), rule=options.pop("rule", ""))
    app = WorkbenchApp(file=file, who="ann", **options)
    try:
        async with app.run_test(size=size) as pilot:
            await until_shown(app, "FILE", "answers.jsonl")
            await until(lambda: desk(app).current is not None and desk(app).current.detail is not None)
            await pilot.pause()
            yield app, pilot
    finally:
        assert app.rating_file is not None
        app.rating_file.close_records()


def desk(app: WorkbenchApp) -> Any:
    assert isinstance(app.screen, RateScreen)
    return app.screen.desk


def counted(path: Path) -> list[dict[str, float]]:
    """The values of the ratings that count, by what is on disk."""
    rated = read_rated(path)
    return [r.values for group in rated.file.groups for r in standing(rated.given(group.key))]


async def press(app: WorkbenchApp, pilot: Pilot[str], keys: Sequence[str], path: Path, count: int) -> None:
    """Press keys, and wait until so many ratings count."""
    await pilot.press(*keys)
    await until(lambda: len(counted(path)) == count, f"{count} ratings")
    await pilot.pause()


async def test_the_top_lines_say_what_is_rated_and_where_the_ratings_go(path: Path) -> None:
    async with rating(path) as (app, pilot):
        top = frame(app).split("\n")[:2]
        assert top[0].startswith(" FILE  answers.jsonl   0 of 3 groups rated")
        assert "RATE" in top[0]
        assert top[1].startswith(" ratings go to ")
        assert top[1].endswith("/answers.jsonl.ratings.jsonl")
        assert "question 1" in frame(app)
        assert "\x1b" not in frame(app)
        assert "[bold]" in frame(app)
        await press(app, pilot, ["4"], path, 1)
        await until_shown(app, "1 of 3 groups rated")


async def test_rate_undo_leave_come_back_undo_again_and_redo(path: Path) -> None:
    async with rating(path) as (app, pilot):
        order = list(desk(app).current.order)
        await press(app, pilot, ["5", "3", "1"], path, 3)
        assert counted(path) == [{order[0]: 5.0}, {order[1]: 3.0}, {order[2]: 1.0}]
        await press(app, pilot, ["u"], path, 2)
        await pilot.press("q")
    async with rating(path) as (app, pilot):
        await until_shown(app, "1 of 3 groups rated")
        await press(app, pilot, ["u"], path, 1)
        await press(app, pilot, ["u"], path, 0)
        assert list(desk(app).current.order) == order
        await until_shown(app, "0 of 3 groups rated")
        await press(app, pilot, ["ctrl+r"], path, 1)
        assert counted(path) == [{order[0]: 5.0}]
    lines = [
        json.loads(line)["kind"] for line in (path.parent / "answers.jsonl.ratings.jsonl").read_text().splitlines()
    ]
    assert lines.count("opened") == 2
    assert lines.count("retracted") == 3
    assert lines.count("rating") == 4


async def test_groups_come_in_the_order_of_the_file_and_end(path: Path) -> None:
    async with rating(path) as (app, pilot):
        for number in (1, 2, 3):
            assert desk(app).current.key == ("main", 0, number)
            await press(app, pilot, ["2", "2", "2"], path, 3 * number)
            await pilot.press("enter")
            await pilot.pause()
            await until(lambda: desk(app).current is None or desk(app).current.detail is not None)
        await until_shown(app, "3 of 3 groups rated", "nothing waits")


async def test_rewards_are_hidden_until_they_are_revealed(path: Path) -> None:
    async with rating(path) as (app, pilot):
        letter = desk(app).current.letter
        reward = {"A": "1", "B": "0.5", "C": "0"}[letter]
        assert f"reward {reward}" not in frame(app)
        await pilot.press("v")
        await until_shown(app, "reward ")
        await press(app, pilot, ["4"], path, 1)
    [saved] = read_rated(path).ratings.values()
    assert (saved.blind, saved.who, saved.values) == (False, "ann", {letter: 4.0})


async def test_a_skip_and_a_comment_are_kept(path: Path) -> None:
    async with rating(path) as (app, pilot):
        letter = desk(app).current.letter
        await pilot.press("x", *"odd", "enter")
        await until(lambda: read_rated(path).skips)
        await pilot.pause()
        [skip] = read_rated(path).skips.values()
        assert (skip.letter, skip.reason, skip.who) == (letter, "odd", "ann")
        await press(app, pilot, ["4"], path, 1)


@pytest.mark.parametrize("key", ["space", "full_stop", "C", "d", "s", "p", "b", "e", "Q", "exclamation_mark"])
async def test_keys_of_the_training_say_in_one_line_that_there_is_none(path: Path, key: str) -> None:
    async with rating(path) as (app, pilot):
        await pilot.press(key)
        await until_shown(app, "a file is rated here, without a session: nothing trains")
        assert isinstance(app.screen, RateScreen)
        await press(app, pilot, ["4"], path, 1)


async def test_neither_footer_nor_help_nor_palette_offers_them(path: Path) -> None:
    absent = {"pause", "step", "checkpoint", "dashboard", "samples", "parameters", "branches", "events", "stop"}
    async with rating(path, size=(200, 40)) as (app, _):
        screen = app.screen
        assert isinstance(screen, RateScreen)
        here = {action.id for action, *_ in actions_here(screen)}
        assert not absent & here
        assert {"undo", "redo", "rate.skip", "help", "detach"} <= here
        footer = frame(app).split("\n")[-1]
        assert "pause" not in footer
        assert "dash" not in footer
        assert "run exactly one step" not in "\n".join(help_lines(screen))


@pytest.mark.parametrize("words", ["pause", "goto 3", "set learning_rate=5e-7", "fork other", "stop", "plan"])
async def test_words_of_the_training_are_refused_in_one_line(path: Path, words: str, monkeypatch) -> None:
    monkeypatch.chdir(path.parent)
    async with rating(path) as (app, pilot):
        await pilot.press("colon", *words, "enter")
        await until_shown(app, "without a session")
        assert isinstance(app.screen, RateScreen)
    assert sorted(p.name for p in path.parent.iterdir()) == ["answers.jsonl", "answers.jsonl.ratings.jsonl"]


async def test_the_word_export_writes_what_was_said(path: Path, tmp_path: Path) -> None:
    async with rating(path) as (app, pilot):
        await press(app, pilot, ["5", "1"], path, 2)
        await pilot.press("colon", *f"export preferences {tmp_path}/out", "enter")
        await until_shown(app, f"answers.jsonl is in {tmp_path}"[:60])
    assert len((tmp_path / "out" / "preferences.jsonl").read_text().splitlines()) == 1


async def test_leaving_says_where_the_ratings_are_and_how_to_come_back(path: Path, tmp_path: Path) -> None:
    async with rating(path) as (app, pilot):
        await press(app, pilot, ["4"], path, 1)
        await pilot.press("escape", "q")
    assert app.return_value == (
        f"1 of 3 groups are rated; the ratings are in {path}.ratings.jsonl. Go on with: workbench rate {path}"
    )
    async with rating(path, output=tmp_path / "my ratings.jsonl") as (app, pilot):
        await pilot.press("q")
    assert app.return_value.endswith(f"workbench rate {path} --output '{tmp_path}/my ratings.jsonl'")  # type: ignore[union-attr]


@pytest.mark.parametrize("hang_up", [False, True])
async def test_what_was_pressed_right_before_leaving_is_kept(path: Path, monkeypatch, hang_up: bool) -> None:
    """The disk is slow: the second rating waits for the first when the screen goes."""
    served = RatingFile.command

    def slowly(file: RatingFile, command: c.Command) -> Any:
        if isinstance(command, c.Rate):
            time.sleep(0.3)
        return served(file, command)

    monkeypatch.setattr(RatingFile, "command", slowly)
    async with rating(path) as (app, pilot):
        await pilot.press("4", "5")
        if hang_up:
            app.exit()
        else:
            await pilot.press("q")
    assert len(counted(path)) == 2


async def test_what_cannot_be_saved_is_told_and_not_shown_as_saved(path: Path) -> None:
    async with rating(path) as (app, pilot):
        path.with_name("answers.jsonl.ratings.jsonl").unlink()
        await pilot.press("4")
        await until_shown(app, "was removed or", "replaced while it was written")
        assert not app.live.ratings


async def test_a_torn_line_is_told_at_the_start(path: Path) -> None:
    file = RatingFile(path, "ann")
    file.close()
    with file.output.open("ab") as log:
        log.write(b'{"kind":"rat')
    async with rating(path) as (app, _):
        await until_shown(app, "a last line of 12 bytes had no end")


async def test_the_mode_and_the_rule_that_were_asked_for(path: Path) -> None:
    async with rating(path, rating_mode="thumbs", rule="spread") as (app, pilot):
        await until(lambda: desk(app).mode.name == "thumbs")
        assert app.live.values["rating_rule"] == "spread"
        letter = desk(app).current.letter
        await press(app, pilot, ["minus"], path, 1)
        assert counted(path) == [{letter: -1.0}]


async def test_a_pair_of_preferences_is_shown_blind(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"prompt": "which?", "chosen": "the good", "rejected": "the bad"}) + "\n")
    async with rating(path) as (app, pilot):
        assert "reward" not in frame(app).replace("reward and step hidden", "").replace("reward hidden", "")
        await press(app, pilot, ["5", "1"], path, 2)
    assert sorted(v for values in counted(path) for v in values.values()) == [1.0, 5.0]


async def test_more_groups_come_from_a_long_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sessions.rating_file.HEADS", 3)
    monkeypatch.setattr("screens.file_link.LOW", 2)
    monkeypatch.setattr(RatingFile, "_heads", lambda *_, **__: [])  # as if the first 200 were done
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q{i}", "response": "a"}) + "\n" for i in range(1, 9)))
    async with rating(path) as (app, pilot):
        for count in range(1, 9):
            await until(lambda: desk(app).current is not None and desk(app).current.detail is not None)
            await press(app, pilot, ["4"], path, count)
            await pilot.press("enter")
            await pilot.pause()
        await until_shown(app, "8 of 8 groups rated")


async def test_nothing_of_a_model_or_its_training_is_told(path: Path) -> None:
    async with rating(path, size=(160, 48)) as (app, pilot):
        assert "reward hidden: v reveals" in frame(app)
        await press(app, pilot, ["4"], path, 1)
        await pilot.press("v")
        await until_shown(app, "0.1 (group 1)")
        assert "reward hidden" not in frame(app)
        assert f"reward {number(response_shown(desk(app)).reward)}" in frame(app)
        await pilot.press("m", "m")
        await until_shown(app, "left", "right")
        for word in (" tok", "update", " advantage", "adv ", "training", "rule:"):
            assert word not in frame(app), word
        await pilot.press("q")
    async with rating(path, size=(80, 24), rating_mode="pair") as (app, pilot):
        await press(app, pilot, ["x", "enter", "x", "enter"], path, 1)
        text = await until_shown(app, "nothing waits")
        assert "The ratings are in answers.jsonl.ratings.jsonl.   q leaves" in text


async def test_a_file_without_rewards_says_nothing_of_them(tmp_path: Path) -> None:
    bare = tmp_path / "answers.jsonl"
    bare.write_text(json.dumps({"prompt": "question 1", "responses": ["answer 1 a", "answer 1 b"]}) + "\n")
    async with rating(bare) as (app, pilot):
        for keys in ("v", "J", "m", "m"):
            below = frame(app).split("\n", 2)[2]  # the path at the top may have any name
            assert "reward" not in below
            await pilot.press(keys)
            await pilot.pause()


async def test_the_guide_of_a_file_is_kept_beside_its_ratings(path: Path) -> None:
    async with rating(path, size=(160, 48)) as (app, pilot):
        await pilot.press(":", *"guide", "enter")
        await until_shown(app, "the guide for whoever rates here", "F2 saves")
        await pilot.press(*"Be kind. ", "f2")
        await until_shown(app, "Be kind. 1. Is the final answer right?", "kept in answers.jsonl.ratings.guide.txt")
    assert "Be kind." in (path.parent / "answers.jsonl.ratings.guide.txt").read_text()
    async with rating(path, size=(160, 48)) as (app, _):
        assert "Be kind. 1. Is the final" in frame(app)
    async with rating(path, size=(160, 48), output=path.parent / "bob.jsonl") as (app, _):
        assert "Be kind." not in frame(app)


async def test_a_mode_that_is_asked_for_is_there_from_the_first_frame(path: Path) -> None:
    async with rating(path, rating_mode="rank") as (app, pilot):
        assert desk(app).mode.name == "rank"
        await press(app, pilot, ["3", "1", "enter"], path, 1)
        await pilot.press("q")
    async with rating(path) as (app, _):
        assert desk(app).mode.name == "rank"
    async with rating(path, rating_mode="thumbs") as (app, _):
        assert desk(app).mode.name == "thumbs"
