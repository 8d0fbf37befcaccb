"""Runs the atheris target: a sample always, long in ``make soak``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import session_fuzzer

ROOT = Path(__file__).parents[2]


def fuzz(corpus: Path, runs: int, seed: int) -> None:
    """Let the fuzzer make this many inputs from a seed (0: another each time), and fail with what it finds."""
    words = [
        sys.executable,
        "-m",
        "tests.fuzz.session_fuzzer",
        f"-runs={runs}",
        f"-seed={seed}",
        "-max_len=2048",
        "-timeout=20",
    ]
    words += [f"-artifact_prefix={corpus}/", str(corpus)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=3600, check=False)
    said = (ended.stdout + ended.stderr[-2000:]).decode(errors="replace")
    assert ended.returncode == 0, said
    assert b"DONE" in ended.stderr


def test_every_seed() -> None:
    """The inputs that the fuzzer begins with pass, without instrumentation."""
    for command in session_fuzzer.PALETTE:
        session_fuzzer.play(b"\0t1 %b\r\nz NOOP\r\n" % command)


def test_a13_a14_fuzz_sample(tmp_path: Path) -> None:
    """Coverage-guided input finds no way around the tokens (THREATS A12 to A14)."""
    fuzz(tmp_path, 20_000, 1)


@pytest.mark.soak
def test_a13_a14_fuzz_long(tmp_path: Path) -> None:
    """The same for a good while."""
    fuzz(tmp_path, 300_000, 0)
