"""How single values are written: durations, sizes, URLs."""

from __future__ import annotations

import pytest

from imapgate.config.values import Unfit, duration, size, url


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("1h", 3600), ("7d", 604800), (5, 5), (0.5, 0.5)],
)
def test_duration(value: object, seconds: float) -> None:
    """A duration has a unit, or is a number of seconds."""
    assert duration(value) == seconds


@pytest.mark.parametrize("value", ["30", "s", "-1s", "1h30m", "", "1e3s", "\u0661s", None, [], -1, 10**400, 0, "0s"])
def test_refused_duration(value: object) -> None:
    """Anything else is no duration; nothing lasts no time, or longer than a week."""
    with pytest.raises(Unfit):
        duration(value)


@pytest.mark.parametrize(
    ("value", "octets"), [("64KiB", 65536), ("12288", 12288), ("7B", 7), ("1MiB", 1048576), (9, 9)]
)
def test_size(value: object, octets: int) -> None:
    """A size has a binary unit, or is a number of octets."""
    assert size(value, 1, 2**30) == octets


@pytest.mark.parametrize("value", ["64kb", "64K", "1.5MiB", "-1", "", 1.5, False, None, 2**31, "2GiB", 0])
def test_refused_size(value: object) -> None:
    """Anything else is no size, nor is what lies outside the bounds."""
    with pytest.raises(Unfit):
        size(value, 1, 2**30)


@pytest.mark.parametrize(
    "value",
    [
        "https://auth.example.org/imap?x=1",
        "https://192.0.2.1:8443",
        "http://127.0.0.1:9000/auth",
        "http://localhost/",
        "http://[::1]:9000/auth",
    ],
)
def test_url(value: str) -> None:
    """A URL is encrypted, or of this machine."""
    assert url(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "auth.example.org",
        "https:",
        "https:///auth",
        "ftp://127.0.0.1/",
        "http://auth.example.org/",
        "http://127.0.0.1.example.org/",
        "http://127.0.0.1@example.org/",
        "https://a:b@127.0.0.1/",
        "https://a.example:0/",
        "https://a.example:99999/",
        "https://a.example/#part",
        "https://a b.example/",
        "https://a_/../b c",
        "https://m\u00fcnchen.example/",
        "https://[::1/",
    ],
)
def test_refused_url(value: str) -> None:
    """Anything else is none: not what crosses the network in clear, nor what holds a password."""
    with pytest.raises(Unfit):
        url(value)


def test_a40_password_in_a_url_is_not_shown() -> None:
    """A URL that holds a password is refused without being repeated (A40)."""
    for value in ("https://a:canary@b.example/", "ftp://a:canary@b.example/", "https://a:canary@b.example:x/"):
        with pytest.raises(Unfit) as caught:
            url(value)
        assert caught.value.secret
