"""The command palette: the registry's actions, found by a few letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider, SearchIcon

from screens.base import WorkbenchScreen
from screens.keys import ACTIONS, Action, shown


def actions_here(screen: WorkbenchScreen) -> Iterator[tuple[Action, str, object]]:
    """(action, key, the node it runs on) for every action whose key works on this screen."""
    seen = set()
    for key, active in screen.active_bindings.items():
        action = ACTIONS.get(active.binding.id or "")
        if action is not None and action.id not in seen and active.enabled:
            seen.add(action.id)
            yield action, shown(key), active.node


class Palette(CommandPalette):
    """With a sign that every terminal has."""

    def on_mount(self) -> None:
        self.query_one(SearchIcon).icon = ">"


class ActionProvider(Provider):
    """Offers what the keys do."""

    def _found(self) -> Iterator[tuple[Action, str, Callable[[], Any]]]:
        if isinstance(self.screen, WorkbenchScreen):
            for action, key, node in actions_here(self.screen):
                if action.palette:
                    yield action, key, partial(self.app.run_action, action.action, node)  # type: ignore[arg-type]

    async def discover(self) -> Hits:
        for action, key, run in self._found():
            yield DiscoveryHit(f"{action.help}   ({key})", run, text=action.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action, key, run in self._found():
            text = f"{action.help}   ({key})"
            score = matcher.match(text)
            if score > 0:
                yield Hit(score, matcher.highlight(text), run, text=action.help)
