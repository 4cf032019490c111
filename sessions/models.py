"""What a model can be named by, and where what the hub has given already lies; nothing here reads a weight.

A name is one of the models that are known by name, a folder, a GGUF file, or ``org/name[@revision]`` on the hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sessions.errors import InputFileError, InvalidValue, UnknownName
from sessions.model_files import check_model_folder
from sessions.paths import expanded

KNOWN = ("tiny", "smollm2")
"""Models that have names of their own."""
_REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w./-]{0,127}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_YES = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model as it was asked for.

    :ivar place: the name of a known one, an absolute path, or ``org/name``.
    :ivar revision: branch, tag or commit on the hub; empty: its main branch.
    """

    kind: Literal["known", "folder", "gguf", "hub"]
    place: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.place}@{self.revision}" if self.revision else self.place

    def at(self, revision: str) -> ModelName:
        """The same at a branch, tag or commit of the hub; empty: as it is.

        :raises InvalidValue: if it can be none, or the model is not of the hub.
        """
        if not revision:
            return self
        if self.kind != "hub":
            raise InvalidValue(f"--model-revision {revision}: {self} is not a model of the hub; leave it out")
        if not _REVISION.fullmatch(revision):
            raise InvalidValue(f"--model-revision: {revision!r} cannot be one; give a branch, a tag or a commit")
        return ModelName(self.kind, self.place, revision)


def parse_model(text: str) -> ModelName:
    """Read the name of a model. What is on the disk comes before what may be on the hub.

    :raises UnknownName: if it is no name and no path.
    :raises InputFileError: if there is no model where it points to.
    """
    if text in KNOWN:
        return ModelName("known", text)
    if not text.strip() or "\0" in text or _too_long(text):
        raise InvalidValue(
            f"model {text!r}: cannot be one; give tiny, smollm2, the folder of a saved model, a .gguf file or org/name "
            "of the hub"
        )
    path = expanded(text)
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise InputFileError(f"model {text}: there is no such GGUF file; give its path, or a folder or hub name")
        return ModelName("gguf", str(path.resolve()))
    if path.exists():
        if not path.is_dir():
            raise InputFileError(f"model {text}: is a file and not a model's folder; give the folder, or a .gguf file")
        return ModelName("folder", str(path.resolve()))
    repository, _, revision = text.partition("@")
    if _REPOSITORY.fullmatch(repository) and (_REVISION.fullmatch(revision) or repository == text):
        return ModelName("hub", repository, revision)
    if os.sep not in text:
        raise UnknownName("model", text, (*KNOWN, "a folder with config.json", "a .gguf file", "org/name on the hub"))
    raise InputFileError(
        f"model {text}: no config.json there; give tiny, smollm2, the folder of a saved model, a .gguf file or "
        "org/name of the hub"
    )


def _too_long(text: str) -> bool:
    try:
        expanded(text).exists()
    except OSError:  # a name, or the whole path
        return True
    return False


def pinned(model: str, commit: str) -> str:
    """A model's name at the commit that was used before; a model that is not on the hub has none.

    :param commit: empty: it was not used before.
    """
    repository, _, _ = model.partition("@")
    return f"{repository}@{commit}" if commit else model


# ---------------------------------------------------------------------------------------------------- the hub


def offline_switch(environment: Mapping[str, str] = os.environ) -> str:
    """``HF_HUB_OFFLINE=1``: what in the environment forbids the hub's network; empty if nothing does."""
    set_to = {name: environment.get(name, "") for name in _SWITCHES}
    return next((f"{name}={value}" for name, value in set_to.items() if value.upper() in _YES), "")


def hub_cache() -> Path:
    """Where the hub's own client keeps what it has fetched, by its rules."""
    if given := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return expanded(given)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return expanded(home) / "hub"


def cached_snapshot(name: ModelName) -> Path | None:
    """The folder of a hub model at its revision that the cache has, whole or not; its name is the commit."""
    folder = hub_cache() / f"models--{name.place.replace('/', '--')}"
    commit = name.revision
    if not _COMMIT.fullmatch(commit):
        try:
            commit = (folder / "refs" / (commit or "main")).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
    snapshot = folder / "snapshots" / commit
    return snapshot if _COMMIT.fullmatch(commit) and snapshot.is_dir() else None


def whole_snapshot(name: ModelName) -> Path | None:
    """The same, if all that a model needs is in it: an interrupted download leaves a part."""
    snapshot = cached_snapshot(name)
    try:
        if snapshot is not None:
            check_model_folder(snapshot, str(name))
    except InputFileError:
        return None
    return snapshot


def need_snapshot(name: ModelName, switch: str) -> Path:
    """The folder of a hub model where the network is forbidden.

    :param switch: what forbids it.
    :raises InputFileError: if the cache does not have it whole.
    """
    snapshot = cached_snapshot(name)
    if snapshot is None:
        raise InputFileError(
            f"model {name}: is not in the hub's cache, and {switch} keeps it from being fetched; unset that, or give a "
            "folder"
        )
    try:
        check_model_folder(snapshot, str(name))
    except InputFileError as error:
        raise InputFileError(f"{error} (it is what the hub's cache has, and {switch} keeps the rest away)") from None
    return snapshot
