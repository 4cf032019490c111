"""``python -m engine.download org/name REVISION [code]``: fetch a model into the hub's cache; nothing else
uses a network.

Safetensors, JSON and tokenizer files come, never a pickle. It writes :class:`engine.hub.Fetched` lines.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any, ClassVar

import msgspec

from engine.hub import Fetched

WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
LEFT_OUT = ("*/*", "consolidated*", "*.fp16.safetensors", "*.bf16.safetensors")
"""Other formats of the same weights, in folders or beside them."""
SECONDS = 0.5
"""Between two lines about how far it is; they come while nothing does, too."""


_saying, _ended = threading.Lock(), threading.Event()


def say(fetched: Fetched) -> None:
    """Write a line, whole, and none after that which says how it ended."""
    with _saying:
        if not _ended.is_set():
            sys.stdout.write(msgspec.json.encode(fetched).decode() + "\n")
            sys.stdout.flush()
        if fetched.folder or fetched.error:
            _ended.set()


class Bar:
    """What the client takes for a progress bar. The one that has counted most bytes says how far it is."""

    bars: ClassVar[list[Bar]] = []

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._items = arguments[0] if arguments else options.get("iterable") or ()
        self.total: float | None = options.get("total")
        self.n: float = options.get("initial") or 0
        if options.get("unit") == "B":
            Bar.bars.append(self)

    def update(self, amount: float | None = 1) -> None:
        self.n += amount or 0

    def __iter__(self) -> Any:
        return iter(self._items)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        """Whatever else a bar does on a terminal."""
        if name.startswith("__") or name in {"get_lock", "set_lock"}:
            raise AttributeError(name)
        return lambda *_, **__: None


def tell_on() -> None:
    """Say how far it is until the process ends."""
    while not _ended.wait(SECONDS):
        done = max((bar.n for bar in Bar.bars), default=0)
        total = max((bar.total or 0 for bar in Bar.bars), default=0)
        say(Fetched(done=int(done), total=int(max(done, total))))


def fetch(repository: str, revision: str, *, code: bool) -> Fetched:
    """Fetch a snapshot, or say in one line why it cannot be had."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.disable(logging.WARNING)
    from huggingface_hub import errors, snapshot_download

    login = "log in with `hf auth login` or set HF_TOKEN"
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[*WANTED, *(["*.py"] if code else [])],
            ignore_patterns=list(LEFT_OUT),
            tqdm_class=Bar,
        )
    except errors.GatedRepoError:
        return Fetched(error=f"is gated; accept its terms on its page of the hub, then {login}")
    except errors.RepositoryNotFoundError:
        return Fetched(error=f"neither a folder here nor a model that the hub shows you; where it is private, {login}")
    except errors.RevisionNotFoundError:
        return Fetched(error=f"the hub has it, but no revision {revision!r} of it; leave @{revision} out")
    except errors.HFValidationError:
        return Fetched(error="cannot be a name on the hub; give org/name, or a folder")
    except Exception as error:  # noqa: BLE001 - a network fails in many ways
        cause = error
        while isinstance(cause, errors.LocalEntryNotFoundError) and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        if isinstance(cause, OSError) and cause.errno is not None and cause.filename is not None:
            return Fetched(error=f"cannot be written into the hub's cache ({cause.strerror}: {cause.filename})")
        text = " ".join(str(cause).split())[:160]
        what = f"{type(cause).__name__}: {text}" if text else type(cause).__name__
        return Fetched(error=f"cannot be fetched from the hub ({what}); check the network, or give a folder")
    return Fetched(folder=folder)


if __name__ == "__main__":
    threading.Thread(target=tell_on, daemon=True).start()
    say(fetch(sys.argv[1], sys.argv[2], code=sys.argv[3:] == ["code"]))
