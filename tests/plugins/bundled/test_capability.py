"""The plugin capability: what is hidden and what is added, for which clients."""

from __future__ import annotations

import pytest

from imapgate.plugins.api import Interests, OptionError
from imapgate.plugins.bundled.capability import PLUGIN
from tests.plugins.bundled.commanding import options, session

NAMES = ("IMAP4rev1", "IDLE", "CONDSTORE", "QRESYNC", "THREAD=REFS", "THREAD=REFERENCES")


def shown(client: dict[str, str] | None = None, **values: object) -> list[str]:
    """Return what a client is shown of the names."""
    found = session()
    found.client_id = client or {}
    return list(PLUGIN(options(**values)).capabilities(found, NAMES))


def test_hide() -> None:
    """What fits a pattern is hidden, in any case, and the rest keeps its order."""
    assert shown(hide=["thread=*", "Idle"]) == ["IMAP4rev1", "CONDSTORE", "QRESYNC"]


def test_add() -> None:
    """What is added stands behind, once."""
    assert shown(add=["XLIST", "idle"]) == [*NAMES, "XLIST"]
    assert shown(hide=["IDLE"], add=["IDLE"]) == ["IMAP4rev1", "CONDSTORE", "QRESYNC", *NAMES[4:], "IDLE"]


def test_it_asks_for_the_list_alone() -> None:
    """It wants to see no command."""
    assert PLUGIN(options(hide=["IDLE"])).interests == Interests(capabilities=True)


def test_imap_itself_is_not_hidden() -> None:
    """A pattern for everything leaves IMAP4rev1."""
    assert shown(hide=["*"]) == ["IMAP4rev1"]


@pytest.mark.parametrize(
    ("client", "concerned"),
    [
        ({"name": "Outlook for Mac", "version": "16.80"}, True),
        ({"name": "outlook", "version": "16"}, True),
        ({"name": "Outlook", "version": "17.1"}, False),
        ({"name": "Outlook"}, False),
        ({"name": "Thunderbird", "version": "16"}, False),
        ({}, False),
    ],
)
def test_clients(client: dict[str, str], concerned: bool) -> None:
    """Only clients that say that they are of the kind, and the version, are shown less."""
    names = shown(client, hide=["*"], clients=["OUTLOOK*"], versions=["16*"])
    assert names == (["IMAP4rev1"] if concerned else list(NAMES))


def test_clients_of_any_version() -> None:
    """Either condition stands alone."""
    assert shown({"name": "Outlook"}, hide=["*"], clients=["outlook"]) == ["IMAP4rev1"]
    assert shown({"version": "1"}, hide=["*"], versions=["1"]) == ["IMAP4rev1"]


@pytest.mark.parametrize(
    ("values", "key"),
    [({"add": ["IDLE\tX"]}, "add[0]"), ({"add": ["A B"]}, "add"), ({"add": [""]}, "add[0]"), ({}, "hide")],
)
def test_options(values: dict[str, object], key: str) -> None:
    """What is added has to be a capability's name, and there has to be something to do."""
    with pytest.raises(OptionError) as raised:
        PLUGIN(options(**values))
    assert raised.value.key == key
