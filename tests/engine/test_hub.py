"""Models of the hub, from a cache as its client leaves it and from a hub on this machine; never from the network."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import hub
from engine.control import Control
from engine.loading import TINY, find_model
from engine.start import start
from sessions.errors import InputFileError, SessionError
from sessions.models import ModelName
from tests.engine.fake_hub import COMMIT, REPOSITORY, Hub, put_into_cache, serving
from tests.engine.live import session

SMALL = ["prompts_per_step=1", "group_size=2", "max_new_tokens=2"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and nothing that forbids the network; the hub is a port that nobody listens on."""
    switches = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "WORKBENCH_HUB_OFFLINE")
    for name in (*switches, "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    return tmp_path / "hf" / "hub"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the repository holds: the embedded model, and what nobody should fetch."""
    folder = Path(shutil.copytree(TINY, tmp_path / "files"))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "own.py").write_text("print()")
    (folder / "consolidated.safetensors").write_bytes(b"others")
    return folder


@pytest.fixture
def online(files: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(files) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


class Told(Control):
    """Keeps what is said while a session loads."""

    def __init__(self) -> None:
        self.progress: list[str] = []
        super().__init__()
        self.notes: list[tuple[str, str]] = []
        self.on_note = lambda kind, text: self.notes.append((kind, text))

    def __setattr__(self, name: str, value: object) -> None:
        if name == "loading" and value:
            self.progress.append(str(value))
        super().__setattr__(name, value)


def test_a_model_is_fetched_once_and_without_pickles_or_code(online: Hub, cache: Path) -> None:
    told = Told()
    found = find_model(REPOSITORY, control=told)
    assert found.commit == COMMIT
    assert found.folder == cache / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / COMMIT
    assert {p.name for p in found.folder.iterdir()} == {p.name for p in TINY.iterdir()}
    assert (found.folder / "model.safetensors").read_bytes() == (TINY / "model.safetensors").read_bytes()
    assert told.progress[0] == f"fetching {REPOSITORY} from the hub"
    assert told.notes == [("model", f"fetched {REPOSITORY} from the hub: commit {COMMIT}")]

    asked = len(online.asked)
    assert asked > 0
    assert find_model(REPOSITORY) == found  # what is there is used, and nobody asked
    assert find_model(f"{REPOSITORY}@main", COMMIT) == found
    assert len(online.asked) == asked
    assert not any("pytorch_model" in path or path.endswith(".py") for path in online.asked)


def test_a_download_that_was_interrupted_is_gone_on_with(online: Hub, files: Path, cache: Path) -> None:
    snapshot = put_into_cache(cache, files)
    (snapshot / "model.safetensors").unlink()
    assert find_model(REPOSITORY).folder == snapshot
    assert (snapshot / "model.safetensors").read_bytes() == (TINY / "model.safetensors").read_bytes()


def test_code_comes_only_where_it_may_run(online: Hub) -> None:
    assert (find_model(REPOSITORY, trust_remote_code=True).folder / "own.py").read_text() == "print()"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("someone/gated", "is gated; accept its terms on its page of the hub, then log in with `hf auth login`"),
        ("someone/nothing", "neither a folder here nor a model that the hub shows you; where it is private"),
        (f"{REPOSITORY}@v2", "the hub has it, but no revision 'v2' of it; leave @v2 out"),
    ],
)
def test_what_the_hub_refuses_is_one_line(online: Hub, name: str, why: str) -> None:
    with pytest.raises(InputFileError) as caught:
        find_model(name)
    assert f"model {name}: {why}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer_is_one_line(cache: Path) -> None:
    with pytest.raises(
        InputFileError, match=r"cannot be fetched from the hub .*; check the network, or give a folder"
    ) as e:
        find_model(REPOSITORY)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_offline_switch_is_named_where_it_is_in_the_way(
    online: Hub, files: Path, cache: Path, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(switch, "1")
    monkeypatch.setenv("WORKBENCH_HUB_OFFLINE", "")
    monkeypatch.delenv("WORKBENCH_HUB_OFFLINE")
    hub.stay_offline()  # as the engine does; it must not take its own setting for the person's
    with pytest.raises(InputFileError, match=f"not in the hub's cache, and {switch}=1 keeps it from being fetched"):
        find_model(REPOSITORY)
    snapshot = put_into_cache(cache, files)
    assert find_model(REPOSITORY).folder == snapshot
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(InputFileError, match=rf"no model\.safetensors there.*{switch}=1 keeps the rest away"):
        find_model(REPOSITORY)
    assert online.asked == []


@pytest.mark.parametrize("given", [None, "", "0"])
def test_the_engine_stays_offline_and_the_download_gets_the_persons_environment(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "WORKBENCH_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    if given is not None:
        monkeypatch.setenv("HF_HUB_OFFLINE", given)
    hub.stay_offline()
    hub.stay_offline()
    assert os.environ["HF_HUB_OFFLINE"] == (given or "1")
    assert hub.forbidden() == ""
    assert hub.own_environment().get("HF_HUB_OFFLINE") == (given or "")
    assert "WORKBENCH_HUB_OFFLINE" not in hub.own_environment()


def test_a_session_goes_on_with_the_commit_that_it_was_started_with(files: Path, cache: Path) -> None:
    put_into_cache(cache, files)
    folder = session("hub", sets=SMALL, model=REPOSITORY)
    start(folder.settings(), Control(), folder)
    assert (folder.settings().model, folder.settings().model_revision) == (REPOSITORY, COMMIT)

    newer = "f" * 40  # the hub's main moves on, to another model
    shutil.copytree(
        cache / "models--someone--small" / "snapshots" / COMMIT, cache / "models--someone--small" / "snapshots" / newer
    )
    (cache / "models--someone--small" / "refs" / "main").write_text(newer)
    assert find_model(REPOSITORY).commit == newer
    settings = folder.settings()
    assert find_model(settings.model, settings.model_revision).commit == COMMIT


def test_a_stop_ends_a_download(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that accepts and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        control = Control()
        control.stop(now=True)
        with pytest.raises(SessionError, match="stopped while someone/small was being fetched"):
            hub.snapshot(ModelName("hub", REPOSITORY), control)


def test_what_others_write_between_the_lines_is_left_out() -> None:
    lines: Any = ["a warning\n", msgspec.json.encode(hub.Fetched(done=1, total=2)).decode(), "[]\n", "\n"]
    told: list[hub.Fetched] = []
    assert hub._follow(lines, told.append) == hub.Fetched(done=1, total=2) == told[0]
    assert len(told) == 1
