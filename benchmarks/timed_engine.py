"""An engine process that tells the processor time of its threads: ``python -m benchmarks.timed_engine FOLDER FD``.

It is ``python -m engine FOLDER`` with one more thread, which sleeps until a line comes in on the socket FD and then
answers with one line of JSON: thread name -> seconds. The threads that Python did not start are ``native`` together.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time

from engine.__main__ import main


def seconds() -> dict[str, float]:
    """Processor time of the threads of this process so far, by name; that of threads that have ended is left out."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found: dict[str, float] = {}
    for thread in map(int, os.listdir("/proc/self/task")):
        name = names.get(thread, "native")
        try:
            spent = time.clock_gettime(~thread << 3 | 6)  # the clock of one thread, as pthread_getcpuclockid(3) gives
        except OSError:
            continue  # it has just ended
        found[name] = found.get(name, 0.0) + spent
    return found


def _answer(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as lines:
        for _ in lines:
            lines.write(json.dumps(seconds()).encode() + b"\n")
            lines.flush()


if __name__ == "__main__":
    threading.Thread(target=_answer, args=(int(sys.argv[2]),), name="clock", daemon=True).start()
    sys.exit(main(sys.argv[1:2]))
