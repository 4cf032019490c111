"""Stands between the engine and a program that it runs, so that the program never outlives the engine.

    python guard.py FD PROGRAM ARGUMENT ...

The program gets this process's standard streams and a session of its own. When the engine lets go of the other end of
the pipe FD, in whichever way it ended, the program and everything it has started are ended: after a moment to leave by
themselves, or at once if a byte came first. Nothing of the workbench is imported here: it has to start fast.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 0.5
"""Seconds to leave at the end of the input, and again when told to."""


def main() -> None:
    life, command = int(sys.argv[1]), sys.argv[2:]
    try:
        program = subprocess.Popen(command, start_new_session=True)
    except (OSError, ValueError) as error:
        print(f"error: {command[0]}: {error}", file=sys.stderr, flush=True)
        os._exit(127)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # the engine has to see when the program closes its ends
        os.dup2(nothing, stream)
    threading.Thread(target=_watch, args=(life, program.pid), daemon=True).start()
    code = program.wait()
    _tell(program.pid, signal.SIGKILL)  # what it started and left behind
    os._exit(code if code >= 0 else 128 - code)


def _watch(life: int, group: int) -> None:
    if not os.read(life, 1):
        time.sleep(GRACE)  # its standard input has ended as well
        _tell(group, signal.SIGTERM)
        time.sleep(GRACE)
    _tell(group, signal.SIGKILL)


def _tell(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    main()
