"""Reward functions that go wrong in every way that was thought of."""

import asyncio
import contextlib
import ctypes
import gc
import os
import subprocess
import sys
import threading
import time


def good(completions, **kwargs):
    return [float(len(text)) for text in completions]


def only_completions(completions):
    return [1.0 for _ in completions]


class Instance:
    def __call__(self, completions, *, answer, **kwargs):
        return [float(text == right) for text, right in zip(completions, answer, strict=True)]


instance = Instance()


class Box:
    method = staticmethod(only_completions)


async def waits(completions, **kwargs):
    global loop
    loop = asyncio.get_running_loop() if "loop" not in globals() else loop
    await asyncio.gather(*(asyncio.sleep(0) for _ in completions))
    return [float(loop is asyncio.get_running_loop())] * len(completions)


def generator(completions, **kwargs):
    yield from (1.0 for _ in completions)


def numpy_array(completions, **kwargs):
    import numpy

    return numpy.arange(len(completions), dtype=numpy.float32)


def endless(completions, **kwargs):
    while True:
        yield 1.0


def wrong_count(completions, **kwargs):
    return [1.0]


def nothing(completions, **kwargs):
    return None


def dictionary(completions, **kwargs):
    return dict.fromkeys(range(len(completions)), 1.0)


def one_number(completions, **kwargs):
    return 1.0


def some_wrong(completions, **kwargs):
    return [1.0, float("nan"), "2", None][: len(completions)]


def raises(completions, **kwargs):
    raise ValueError("no digit\nin it \x1b[31m")


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("never")


def unspeakable(completions, **kwargs):
    raise Unspeakable


def megabytes(completions, **kwargs):
    raise ValueError("x" * 3_000_000)


def system_exit(completions, **kwargs):
    sys.exit(3)


def interrupted(completions, **kwargs):
    raise KeyboardInterrupt


def deep(completions, **kwargs):
    return deep(completions)


def exits(completions, **kwargs):
    os._exit(3)


def exits_for_a(completions, **kwargs):
    if completions[0] == "a":
        os._exit(3)
    return [1.0] * len(completions)


def crashes(completions, **kwargs):
    sys.stderr = None
    ctypes.string_at(0)


def loops(completions, **kwargs):
    while True:
        pass


def stuck_in_c(completions, **kwargs):
    ctypes.PyDLL(None).sleep(1000)  # holds the interpreter


def sleeps(completions, **kwargs):
    time.sleep(1000)


def closes_files(completions, **kwargs):
    os.closerange(3, 256)
    return [1.0] * len(completions)


def forks(completions, **kwargs):
    os.fork()
    return [1.0] * len(completions)


def leaves_a_child(completions, **kwargs):
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    return [float(child.pid)] * len(completions)


def leaves_a_thread(completions, **kwargs):
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return [1.0] * len(completions)


def floods(completions, **kwargs):
    for _ in range(20):
        print("x" * 1_000_000)
        print("\x1b[31mred")
    return [1.0] * len(completions)


def takes_memory(completions, **kwargs):
    held = []
    while True:
        held.append(bytearray(4_000_000))
        time.sleep(0.001)


def collects(completions, **kwargs):
    gc.collect()
    return [1.0] * len(completions)


def answers_itself(completions, **kwargs):
    fake = b'{"id": 0, "values": [9.0, 9.0], "wrong": {}, "metrics": []}\n'
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(number, fake)
    return [1.0] * len(completions)
