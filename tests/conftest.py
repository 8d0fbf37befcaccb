"""What holds for every test: errors that Twisted only logs fail the test, and hypothesis has its profiles."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import provider

settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.register_profile(
    "soak", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """Take the long hypothesis profile for `-m soak`, unless the environment has chosen one."""
    if config.getoption("markexpr", "") == "soak" and "HYPOTHESIS_PROFILE" not in os.environ:
        settings.load_profile("soak")


def pytest_collection_finish() -> None:
    """Take what the imports have made out of the collector's sight: a collection after each test is then quick."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def critical_events() -> list[LogEvent]:
    """The critical log events of this test so far; a test that provokes one on purpose looks at it and clears it."""
    return []


@pytest.fixture(autouse=True)
def no_critical_events(critical_events: list[LogEvent]) -> Iterator[None]:
    """Fail the test on an unhandled error in a Deferred or in the reactor: pytest alone would not see it."""

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.critical:
            critical_events.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect()  # an unhandled Deferred logs its failure when it is collected
    finally:
        globalLogPublisher.removeObserver(observe)
    if critical_events:
        told = []
        for event in critical_events:
            failure = event.get("log_failure")
            told.append(formatEvent(event) + (f"\n{failure.getTraceback()}" if failure else ""))
        pytest.fail("critical log events:\n" + "\n".join(told), pytrace=False)
