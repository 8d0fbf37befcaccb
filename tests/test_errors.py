"""The exceptions, and the bounds."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from imapgate.errors import ClientProtocolError, ConfigurationError, ImapgateError, ProtocolError, UpstreamProtocolError
from imapgate.limits import DEFAULTS, Limits


def test_tree() -> None:
    """The two protocol errors are what may leave the core; all of them are the project's own."""
    assert ClientProtocolError.__bases__ == UpstreamProtocolError.__bases__ == (ProtocolError,)
    assert ProtocolError.__bases__ == ConfigurationError.__bases__ == (ImapgateError,)


@pytest.mark.parametrize("fatal", [False, True])
def test_client_protocol_error(fatal: bool) -> None:
    """It carries its text, and whether the connection can go on."""
    error = ClientProtocolError("no such thing", fatal=fatal)
    assert (error.text, str(error), error.fatal) == ("no such thing", "no such thing", fatal)
    assert ClientProtocolError("x").fatal is False


def test_configuration_error() -> None:
    """It says every problem on a line of its own."""
    error = ConfigurationError(["this", "that"])
    assert error.problems == ["this", "that"]
    assert str(error) == "this\nthat"


def test_limits() -> None:
    """No bound is unlimited by accident, and none changes under way."""
    for field in fields(Limits):
        value = getattr(DEFAULTS, field.name)
        if field.name == "failed_login_delays":
            assert value == (2.0, 4.0, 8.0, 15.0)
        elif field.name in ("clients", "upstream_connections"):  # as many as there are descriptors for
            assert value == 0
        else:
            assert value > 0
    with pytest.raises(FrozenInstanceError):
        DEFAULTS.tag = 1  # type: ignore[misc]
