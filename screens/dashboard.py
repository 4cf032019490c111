"""The dashboard: the charts, and the state of the run."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from screens.base import WorkbenchScreen
from screens.keys import bindings


class DashboardScreen(WorkbenchScreen):
    """Charts."""

    MODE = "dashboard"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("dashboard")]

    def goto(self, step: int) -> None:
        """The charts around a step."""
