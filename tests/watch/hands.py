"""Somebody at the keyboard of the screen."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Input

from clew.cli.screen.app import Fork, WatchApp
from clew.runs import Run

GOLDEN = Path(__file__).parent / "golden"
Play = Callable[["Hands"], Awaitable[None]]


class Hands:
    """Somebody at the keyboard, who sees what stands on the screen."""

    def __init__(self, app: WatchApp, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    @property
    def text(self) -> str:
        """The screen as text. Textual has this only as an SVG."""
        return "\n".join(strip.text.rstrip() for strip in self.app.screen._compositor.render_strips()) + "\n"

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Type into the line that has the focus, as fast as by pasting, and press Enter."""
        line = self.app.focused
        assert isinstance(line, Input)
        line.value = text
        await self.press("enter")

    async def sees(self, *texts: str) -> None:
        """Wait until something stands there; with a deadline."""
        deadline = time.monotonic() + 30
        while not all(text in self.text for text in texts):
            assert time.monotonic() < deadline, f"{texts} never stood there:\n{self.text}"
            await self.pilot.pause(0.02)

    async def sees_all_of(self, name: str) -> None:
        """Wait until the whole screen is the expected one."""
        path = GOLDEN / name
        if os.environ.get("CLEW_UPDATE_GOLDEN"):
            await self.pilot.pause(2)
            path.write_text(self.text)
        await self.sees(path.read_text())


def forks_nothing(run: Run, *, name: str, overrides: Sequence[str]) -> str:
    raise AssertionError("nobody asked for it")


def play(run: Run, body: Play, *, size: tuple[int, int] = (100, 30), fork: Fork = forks_nothing) -> WatchApp:
    """Open the screen and let somebody play on it."""
    app = WatchApp(run, fork=fork)

    async def session() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            hands = Hands(app, pilot)
            await hands.sees("job ", "attempt ")
            await body(hands)

    asyncio.run(session())
    return app
