"""Truths and views, as the tests of what is made of them want them: in one line."""

from __future__ import annotations

from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View


def holding(*uids: int, flags: bytes = b"", validity: bytes = b"7") -> Truth:
    """A truth that knows these messages, all with the same flags."""
    truth = Truth()
    truth.validity = validity
    for uid in uids:
        arrive(truth, uid, flags)
    return truth


def arrive(truth: Truth, uid: int, flags: bytes = b"") -> None:
    """A new message is there, and known."""
    truth.exists(len(truth) + 1)
    truth.learn(len(truth) - 1, uid, flags)


def looking(truth: Truth, *, read_only: bool = False) -> View:
    """A view that knows all that is there."""
    view = View(read_only=read_only)
    view.take(truth)
    view.recent(truth)
    view.announced = truth.announced
    return view


def go(truth: Truth, uid: int, *views: View) -> None:
    """A message is gone, and none of these has been told."""
    index = truth.index(uid)
    assert index is not None
    truth.expunge(index + 1)
    for view in views:
        view.expunged(truth, index, uid)


def alter(truth: Truth, uid: int, flags: bytes, *views: View) -> None:
    """A message has other flags, and these are owed them."""
    index = truth.index(uid)
    assert index is not None
    if truth.learn(index, uid, flags):
        for view in views:
            view.owe(truth, index)
