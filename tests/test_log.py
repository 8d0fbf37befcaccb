"""The gate's logger."""

from __future__ import annotations

import pytest
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from zope.interface import provider

from imapgate.log import LEVEL, _level, log


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (None, LogLevel.info),
        ("debug", LogLevel.debug),
        ("WARN", LogLevel.warn),
        ("loud", LogLevel.info),
        ("", LogLevel.info),
    ],
)
def test_level(monkeypatch: pytest.MonkeyPatch, value: str | None, level: object) -> None:
    """The level is the environment's, and ``info`` where that says none or nonsense."""
    monkeypatch.delenv(LEVEL, raising=False)
    if value is not None:
        monkeypatch.setenv(LEVEL, value)
    assert _level() is level


def test_reaches_the_observers_of_the_process() -> None:
    """What is logged reaches whoever observes the process's log, under the gate's name."""
    events: list[LogEvent] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "imapgate":
            events.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        log.warn("one {word}", word="line")
    finally:
        globalLogPublisher.removeObserver(observe)
    assert [event["word"] for event in events] == ["line"]
