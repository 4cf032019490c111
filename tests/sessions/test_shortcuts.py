"""The table of shortcuts."""

import pytest

from sessions.errors import UnknownName
from sessions.shortcuts import SHORTCUTS, active


def test_every_shortcut_is_taken_unless_it_is_turned_off() -> None:
    assert active([]) == set(SHORTCUTS)
    assert active(["tree"]) == set(SHORTCUTS) - {"tree"}
    assert active(["tree", "all"]) == set()


def test_an_unknown_shortcut_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean tree"):
        active(["tre"])
