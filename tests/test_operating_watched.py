"""What an operator does is in the audit trail, and what plugins and the trail do is for an operator to see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from imapgate import operating as module
from imapgate.config.types import Audit, PluginEntry
from tests.desk import TWO, Desk
from tests.net.wires import logged
from tests.serving import TOML, Written, contained
from tests.test_service_watched import Pool as NoThreads
from tests.test_service_watched import at_once, noted, records


@pytest.fixture(autouse=True)
def nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither signals nor the process's limits nor sockets are touched, and there are no threads."""
    for each in ("imapgate.assembly", "imapgate.recording"):
        monkeypatch.setattr(f"{each}.Threads", NoThreads)
        monkeypatch.setattr(f"{each}.deferToThreadPool", at_once)
    with contained(monkeypatch):
        yield


def watched(folder: Path, plugin: str = "one") -> Desk:
    """An operator at a gate with a trail and a plugin."""
    entry = PluginEntry("tests.test_service_watched.Noted", plugin, {"word": plugin}, Path())
    return Desk(attrs.evolve(TWO, audit=Audit(folder / "audit.jsonl"), plugins=(entry,)))


def actions(desk: Desk, folder: Path) -> list[dict[str, Any]]:
    """What the trail says an operator has done."""
    desk.running.reactor.advance(0.2)
    return [each for each in records(folder / "audit.jsonl") if each["event"] == "admin.action"]


def test_what_is_done_is_recorded(tmp_path: Path) -> None:
    """Which command it was, with what, and what came of it."""
    desk = watched(tmp_path)
    desk.running.logged_in()
    desk.done("pause", upstream="store")
    desk.done("kick", who="alice")
    said = desk.refused("kick", who="carol")
    done = actions(desk, tmp_path)
    assert [(each["admin.command"], each["admin.arguments"], each["outcome"]) for each in done] == [
        ("pause", ["upstream=store"], "ok"),
        ("kick", ["who=alice"], "ok"),
        ("kick", ["who=carol"], "no"),
    ]
    assert done[2]["reason"] == said
    assert "reason" not in done[0]


def test_what_is_looked_at_is_not_recorded(tmp_path: Path) -> None:
    """Only what changes something is an action."""
    desk = watched(tmp_path)
    for what in module._SHOW:
        desk.shows(what)
    assert actions(desk, tmp_path) == []


def test_a_bug_in_a_command_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What broke in the middle may have done something: it is recorded as an error, and raised."""
    desk = watched(tmp_path)

    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(desk.running.service.gate.pools, "pause", broken)
    assert isinstance(desk.acts("pause")[0], RuntimeError)
    (done,) = actions(desk, tmp_path)
    assert (done["admin.command"], done["outcome"], done["reason"]) == ("pause", "error", "RuntimeError")


def test_what_takes_time_is_recorded_when_it_is_done(tmp_path: Path) -> None:
    """A drain is an action when its sessions have gone."""
    desk = watched(tmp_path)
    patron = desk.running.logged_in()
    told = desk.acts("drain", upstream="store")
    assert actions(desk, tmp_path) == []
    patron.leaves()
    for _ in range(5):
        desk.running.reactor.advance(0.1)
    assert told
    assert [each["admin.command"] for each in actions(desk, tmp_path)] == ["drain"]


def test_a_trace_is_recorded(tmp_path: Path) -> None:
    """Whoever reads along with a user has done something."""
    desk = watched(tmp_path)
    stop = desk.operator.trace("alice", None, lambda row: None)
    stop()
    (done,) = actions(desk, tmp_path)
    assert (done["admin.command"], done["admin.arguments"], done["outcome"]) == ("trace", ["user=alice"], "ok")


@pytest.mark.parametrize("good", [False, True])
def test_a_reload(tmp_path: Path, good: bool) -> None:
    """Both the action and what became of the configuration are recorded."""
    trail = f'[audit]\nfile = "{tmp_path}/audit.jsonl"\n'
    desk = Desk(running=Written(tmp_path, TOML + trail + noted("one")))
    desk.running.file.write_text(TOML + trail + noted("two", fails="never" if good else "start"))  # type: ignore[attr-defined]
    with logged(module):
        if good:
            desk.done("reload")
        else:
            said = desk.refused("reload")
            assert said.startswith("nothing is reloaded, all stays as it was:\nthe plugin two does not start: ")
    (done,) = actions(desk, tmp_path)
    assert done["outcome"] == ("ok" if good else "no")
    reloads = [each["outcome"] for each in records(tmp_path / "audit.jsonl") if each["event"] == "config.reload"]
    assert reloads == (["ok"] if good else [])
    assert [row["plugin"] for row in desk.shows("plugins")] == ["two" if good else "one"]


def test_plugins_and_the_trail_are_shown(tmp_path: Path) -> None:
    """What each plugin was asked, and how the trail and its sinks fare."""
    desk = watched(tmp_path)
    patron = desk.running.logged_in()
    patron.says(b"b DELETE x\r\n")
    (plugin,) = desk.shows("plugins")
    assert (plugin["plugin"], plugin["asked"], plugin["rejected"], plugin["breaker"]) == ("one", 1, 1, "closed")
    (trail,) = desk.shows("audit")
    assert (trail["name"], trail["state"], trail["sent"]) == (str(tmp_path / "audit.jsonl"), "running", 4)


def test_nothing_to_show() -> None:
    """Where there is neither there are no rows, and nothing is recorded."""
    desk = Desk()
    assert (desk.shows("plugins"), desk.shows("audit")) == ([], [])
    desk.done("pause")
