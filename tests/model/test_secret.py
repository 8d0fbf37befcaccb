"""A40: a secret is never seen, whatever is done to it but reveal."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from collections.abc import Callable

import pytest

from imapgate.model.secret import Credentials, Secret

CANARY = b"hunter2"
SHOWN: list[Callable[[Secret], str]] = [
    repr,
    str,
    "{}".format,
    "{!r:>20}".format,
    lambda secret: f"{secret}",
    lambda secret: f"{[secret]} {(secret,)}",
    lambda secret: repr(Credentials(b"alice", secret)),
]


@pytest.mark.parametrize("show", SHOWN)
def test_a40_redacted(show: Callable[[Secret], str]) -> None:
    """No way to print a Secret shows what is in it."""
    shown = show(Secret(CANARY))
    assert "hunter2" not in shown
    assert "Secret(…)" in shown


def test_reveal() -> None:
    """The one way to the bytes."""
    assert Secret(CANARY).reveal() == CANARY


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, bytes, vars])
def test_a40_not_to_be_copied_out(copied: Callable[[Secret], object]) -> None:
    """Neither pickle nor json nor a copy takes it along."""
    with pytest.raises(TypeError):
        copied(Secret(CANARY))


def test_a40_traceback() -> None:
    """A traceback that shows the values of local variables shows none of a secret's."""
    secret = Secret(CANARY)
    try:
        raise RuntimeError(secret)
    except RuntimeError as error:
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "Secret(…)" in told
    assert "hunter2" not in told


def test_credentials() -> None:
    """Without an authorisation identity a client acts as itself."""
    assert Credentials(b"alice", Secret(CANARY)).authorisation == b""
