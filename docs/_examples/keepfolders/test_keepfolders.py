"""The plugin in a session without sockets: this test is the client, and the server."""

import pytest
from keepfolders import KeepFolders

from imapgate.errors import ConfigurationError
from imapgate.testing import Harness

OPTIONS = {"domain": "example.org"}


def test_delete_is_refused() -> None:
    """The client is told so, and the server hears nothing of it."""
    session = Harness(KeepFolders, OPTIONS, user="eve@Example.org")
    assert session.client("a1 DELETE Plans") == "a1 NO [NOPERM] Folders of example.org stay"
    assert session.sent_upstream == ""


def test_others_may_delete() -> None:
    """Of another domain, the command goes on, under a tag of the gate's own."""
    session = Harness(KeepFolders, OPTIONS, user="bob@example.net")
    assert session.client("a1 DELETE Plans") == ""
    assert session.sent_upstream == "TAG DELETE Plans"
    assert session.upstream("TAG OK Deleted") == "a1 OK Deleted"


def test_a_configuration_without_the_domain() -> None:
    """The gate does not start, and says why."""
    with pytest.raises(ConfigurationError, match=r"domain: missing; expected a string"):
        Harness(KeepFolders)
