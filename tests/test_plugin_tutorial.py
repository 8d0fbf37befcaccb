"""The plugin of docs/plugins.rst: its own tests pass, and a gate finds it in both of the ways that the page shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from imapgate.plugins.loading import GROUP, Entry, load
from imapgate.testing import Harness
from tests.config.configurations import CONF

EXAMPLE = CONF.parent / "docs" / "_examples" / "keepfolders"
OPTIONS = {"domain": "example.org"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the tutorial's folder, where Python finds what is in it, and forgets it afterwards."""
    folder = tmp_path / "keepfolders"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop("keepfolders", None)
    yield folder
    sys.modules.pop("keepfolders", None)


def _delete(use: str) -> str:
    return Harness(use, OPTIONS, user="eve@example.org").client("a1 DELETE Plans")


def test_its_own_tests(folder: Path) -> None:
    """They pass as the page has its reader run them, in a folder that knows nothing of this one."""
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout


@pytest.mark.parametrize("use", ["keepfolders.KeepFolders", "keepfolders:KeepFolders"])
def test_by_its_dotted_path(folder: Path, use: str) -> None:
    """A folder in PYTHONPATH is enough."""
    assert _delete(use) == "a1 NO [NOPERM] Folders of example.org stay"


def test_by_its_entry_point(folder: Path) -> None:
    """What its pyproject.toml declares, as pip would write it down, gives it a name."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    installed = folder / f"{project['name']}-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\n")
    points = "\n".join(f"{name} = {target}" for name, target in project["entry-points"][GROUP].items())
    (installed / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")
    (one,) = load([Entry("keepfolders", OPTIONS)])
    assert one.name == "keepfolders"
    assert _delete("keepfolders") == "a1 NO [NOPERM] Folders of example.org stay"
