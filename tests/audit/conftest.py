"""A folder for an audit file, and a disk that can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from imapgate.audit import file
from tests.audit.trails import Bed, Disk


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    """A folder for an audit file."""
    return Bed(tmp_path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that can fail, below the file of the trail."""
    disk = Disk()
    monkeypatch.setattr(file, "os", disk)
    return disk
