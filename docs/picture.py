"""Make ``docs/dashboard.png``: the real app beside a running session, rendered by a browser.

    python docs/picture.py SESSION [WIDTHxHEIGHT] [KEY ...] > picture.svg

writes the SVG that Textual exports; `make picture` starts a session, does that and has Chromium draw it, because
other renderers of SVG break braille.
"""

from __future__ import annotations

import asyncio
import sys

from screens.app import WorkbenchApp
from sessions.folders import session_folder


async def main(session: str, size: str = "160x48", *keys: str) -> None:
    columns, rows = map(int, size.split("x"))
    app = WorkbenchApp(session_folder(session))
    async with app.run_test(size=(columns, rows)) as pilot:
        for key in keys:
            await pilot.pause(1.5)
            await pilot.press(key)
        await pilot.pause(4)
        sys.stdout.write(app.export_screenshot())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
