"""What watching a running session costs: key to paint, bytes to the terminal, time to first paint.

    python benchmarks/screen_latency.py [SESSION] [--seconds 30] [--sizes 80x24,160x48]

Starts a session on the embedded default (or uses a running one), attaches the real command through a pseudo-terminal
while it trains, presses j, k and screen keys, and prints one JSON line a size:

key_ms_p50, key_ms_p99   from writing j or k to the terminal until the row that the cursor moves to has been painted
screen_ms_p50, _p99      from writing the key of another screen until its title has been painted
bytes_per_second         to the terminal with nobody pressing anything
first_paint_s            from starting the command to the first byte of a screen with the reward chart on it
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

from sessions.hyperparameters import HYPERPARAMETERS

UNANSWERED = 2000.0
"""Milliseconds after which a key counts as unanswered."""
WORKBENCH = [sys.executable, "-m", "workbench"]


class Terminal:
    """A command behind a pseudo-terminal."""

    def __init__(self, command: list[str], columns: int, rows: int) -> None:
        self.began = time.monotonic()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "COLORTERM": "truecolor"}
            os.execvp(command[0], command)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def read(self, timeout: float) -> bytes:
        """What the command has written; empty when nothing came in time."""
        ready, _, _ = select.select([self.fd], [], [], timeout)
        try:
            return os.read(self.fd, 1 << 16) if ready else b""
        except OSError:
            return b""

    def until(self, text: bytes, seconds: float) -> float:
        """Read until the output holds ``text``; the seconds since the start."""
        seen = b""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            seen += self.read(0.1)
            if text in seen:
                return time.monotonic() - self.began
        raise TimeoutError(f"{text!r} did not appear within {seconds} s; last output: {seen[-300:]!r}")

    def drain(self, seconds: float) -> int:
        """Read for so long; the bytes that came."""
        total, deadline = 0, time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            total += len(self.read(left))
        return total

    def key(self, key: bytes, expected: bytes) -> float:
        """Milliseconds from a key to output that holds ``expected``."""
        began = time.perf_counter()
        os.write(self.fd, key)
        seen = b""
        while time.perf_counter() - began < UNANSWERED / 1000:
            seen += self.read(0.05)
            if expected in seen:
                return 1000 * (time.perf_counter() - began)
        return UNANSWERED

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self.fd, b"q")
        self.drain(1.0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGHUP)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def measure(session: str, columns: int, rows: int, seconds: float) -> dict[str, object]:
    """Attach at one size and measure."""
    terminal = Terminal([*WORKBENCH, "attach", session], columns, rows)
    try:
        first = terminal.until(b"reward", 20)
        terminal.drain(3)
        quiet = terminal.drain(seconds / 2) / (seconds / 2)
        switches = timed(
            terminal, seconds / 2, [(b"p", b"range"), (b"e", b"EVENTS"), (b"s", b"SAMPLES"), (b"d", b"reward")]
        )
        terminal.key(b"p", b"range")
        terminal.drain(1)
        names = list(HYPERPARAMETERS)[:8]  # the table paints the row that the cursor moves to
        down = [(b"j", name.encode()) for name in names[1:]]
        up = [(b"k", name.encode()) for name in reversed(names[:-1])]
        moves = timed(terminal, seconds, down + up)
    finally:
        terminal.close()
    return {
        "size": f"{columns}x{rows}",
        "first_paint_s": round(first, 2),
        "bytes_per_second": round(quiet),
        "key_ms_p50": quantile(moves, 0.5),
        "key_ms_p99": quantile(moves, 0.99),
        "keys": len(moves),
        "screen_ms_p50": quantile(switches, 0.5),
        "screen_ms_p99": quantile(switches, 0.99),
        "screens": len(switches),
        "unanswered": sum(t == UNANSWERED for t in moves + switches),
    }


def timed(terminal: Terminal, seconds: float, keys: list[tuple[bytes, bytes]]) -> list[float]:
    """Press the keys in turn for so long; milliseconds each, :data:`UNANSWERED` where no paint came."""
    taken: list[float] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for key, expected in keys:
            terminal.drain(0.12)
            taken.append(terminal.key(key, expected))
    return taken


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("session", nargs="?")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--sizes", default="80x24,160x48")
    arguments = parser.parse_args()
    session = arguments.session or f"latency-{os.getpid()}"
    started = None
    if arguments.session is None:
        started = subprocess.Popen(
            [*WORKBENCH, "run", "--headless", "--name", session], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while subprocess.run([*WORKBENCH, "status", session], check=False, capture_output=True).returncode:
            time.sleep(0.5)
    try:
        for size in arguments.sizes.split(","):
            columns, rows = map(int, size.split("x"))
            print(json.dumps(measure(session, columns, rows, arguments.seconds)), flush=True)
    finally:
        if started is not None:
            subprocess.run([*WORKBENCH, "stop", session, "--now"], check=False, capture_output=True)
            started.wait(30)


if __name__ == "__main__":
    main()
