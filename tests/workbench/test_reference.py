"""The reference pages are what the definitions say."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.reference import PAGES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_generated_from_the_present_definitions(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run `make docs`"
