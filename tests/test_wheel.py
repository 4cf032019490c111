"""The wheel holds the four packages, whole, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"workbench", "engine", "screens", "sessions"}

pytestmark = [
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what belongs into the wheel is known from git"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy of what is tracked or new, so that nothing is written into the checkout
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.Path(path)


def test_four_packages_and_nothing_else(wheel: zipfile.Path) -> None:
    top = {entry.name for entry in wheel.iterdir()}
    (info,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {*PACKAGES, info}
    names = wheel.root.namelist()
    assert not [name for name in names if "test" in name.lower() or "__pycache__" in name or name.endswith(".pyc")]


def test_every_file_of_the_packages_is_in_it(wheel: zipfile.Path) -> None:
    """Data files too: the embedded model, the style sheets."""
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    missing = set(listed.stdout.split()) - set(wheel.root.namelist())
    assert {name for name in missing if (ROOT / name).exists()} == set()


def test_the_embedded_model_is_in_it(wheel: zipfile.Path) -> None:
    model = {name for name in wheel.root.namelist() if name.startswith("engine/tiny_model/")}
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert f"engine/tiny_model/{name}" in model
    assert sum(wheel.root.getinfo(name).file_size for name in model) < 5_000_000


def test_the_command_and_the_dependencies(wheel: zipfile.Path) -> None:
    (info,) = (entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info"))
    assert "workbench = workbench.cli:main" in (info / "entry_points.txt").read_text()
    metadata = (info / "METADATA").read_text()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in declared:
        assert f"Requires-Dist: {requirement.split('>')[0]}" in metadata


def test_no_package_shadows_another_distribution() -> None:
    """A dependency that brought a package called ``engine`` or ``sessions`` would be overwritten, or overwrite ours."""
    owners = packages_distributions()
    for package in PACKAGES:
        assert {name.replace("_", "-") for name in owners.get(package, ["rl-workbench"])} == {"rl-workbench"}
