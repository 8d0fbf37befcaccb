"""A gate with plugins and an audit trail: started, reloaded and stopped with them, and nothing of either left over."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute

from imapgate import assembly, recording
from imapgate import service as module
from imapgate.audit import trail as trail_module
from imapgate.config import load
from imapgate.errors import ConfigurationError
from imapgate.plugins.api import Command, Event, Interests, Options, Plugin, Reject, Session
from imapgate.plugins.runner import PluginFault
from imapgate.service import STOP_SECONDS
from tests.net.wires import logged
from tests.serving import TOML, Patron, Reactor, Written, contained

HERE = "tests.test_service_watched"
THIRD = '[[listener]]\nendpoint = "tcp:3143:interface=127.0.0.1"\n'

happened: list[str] = []


class Noted(Plugin):
    """A plugin that notes when it is started and stopped, and refuses DELETE in its name."""

    interests = Interests(verbs=frozenset(["DELETE"]), events=frozenset([Event.CLOSED]))

    def __init__(self, options: Options) -> None:
        self.word = options.text("word")
        self.fails = options.text("fails", "")

    def start(self, clock: object) -> None:
        """Note it."""
        if self.fails == "start":
            raise RuntimeError("no licence")
        happened.append(f"{self.word} starts")

    def stop(self) -> None:
        """Note it."""
        happened.append(f"{self.word} stops")
        if self.fails == "stop":
            raise RuntimeError("a bug")

    def command(self, session: Session, command: Command) -> Reject:
        """Refuse it."""
        if self.fails == "command":
            raise RuntimeError("a bug")
        return Reject("NOPERM", self.word)

    def session_closed(self, session: Session, reason: str) -> None:
        """Note it."""
        happened.append(f"{self.word} closes")


def noted(word: str, **more: str) -> str:
    """A plugin of that name."""
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    return f'[[plugin]]\nuse = "{HERE}.Noted"\nname = "{word}"\nword = "{word}"\n{keys}'


class Pool:
    """Threads that are none."""

    def __init__(self, least: int, most: int, name: str) -> None:
        self.name = name

    def start(self) -> None:
        """Note it."""
        happened.append(f"threads of {self.name} start")

    def stop(self) -> None:
        """Note it."""
        happened.append(f"threads of {self.name} stop")


def at_once(reactor: object, pool: object, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Call it."""
    return execute(function, *arguments)


@pytest.fixture(autouse=True)
def nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither signals nor the process's limits nor sockets are touched, and there are no threads."""
    happened.clear()
    for each in (assembly, recording):
        monkeypatch.setattr(each, "Threads", Pool)
        monkeypatch.setattr(each, "deferToThreadPool", at_once)
    with contained(monkeypatch):
        yield


def audit(folder: Path, more: str = "") -> str:
    """A trail in this folder."""
    return f'[audit]\nfile = "{folder / "audit.jsonl"}"\n{more}'


def records(file: Path) -> list[dict[str, Any]]:
    """What a file holds."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def events(folder: Path, name: str = "audit.jsonl") -> list[str]:
    """What a file says has happened."""
    return [f"{each['event']} {each['outcome']}" for each in records(folder / name)]


def passes(running: Written, seconds: float = 0.5) -> None:
    """Let time pass in small steps."""
    for _ in range(round(seconds / 0.05)):
        running.reactor.advance(0.05)


def plugins(word: str) -> list[str]:
    """What has happened to one plugin."""
    return [each for each in happened if each.startswith(f"{word} ")]


# --- starting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[audit]\nfile = "{folder}/trail/audit.jsonl"\n', "audit file {folder}/trail/audit.jsonl: No such file or"),
        ('[audit]\nfile = "{folder}/d.jsonl"\n', "audit file {folder}/d.jsonl: "),
        (noted("one") + noted("two", fails="start"), "the plugin two does not start: RuntimeError: no licence"),
    ],
)
def test_a_start_that_fails(tmp_path: Path, text: str, said: str) -> None:
    """What cannot be used any more ends the process with one sentence, and no plugin is left running."""
    (tmp_path / "trail").mkdir()
    file = tmp_path / "imapgate.toml"
    file.write_text(TOML + text.replace("{folder}", str(tmp_path)))
    service = module.GateService(Reactor(), load(file))
    (tmp_path / "trail").rmdir()
    (tmp_path / "d.jsonl").mkdir()
    service.privilegedStartService()
    with pytest.raises(SystemExit) as ended:
        service.startService()
    told = str(ended.value)
    assert told.startswith("imapgate: " + said.replace("{folder}", str(tmp_path)))
    assert "\n" not in told
    assert ended.value.code not in (0, None)
    assert plugins("one") == (["one starts", "one stops"] if "one" in text else [])
    assert plugins("two") == []


def test_plugins_start_with_the_service(tmp_path: Path) -> None:
    """In their order, behind the trail, and not when the configuration is only read."""
    file = tmp_path / "imapgate.toml"
    file.write_text(TOML + noted("one") + noted("two"))
    made = module.GateService(Reactor(), load(file))
    made.assembly.close()
    assert happened == []
    running = Written(tmp_path, TOML + audit(tmp_path) + noted("one") + noted("two"))
    assert happened == ["threads of audit trail start", "threads of plugins start", "one starts", "two starts"]
    assert Patron(running).says(b"a LOGOUT\r\n").startswith(b"* BYE ")


# --- serving, and stopping ----------------------------------------------------------------------------


def test_from_the_start_to_the_end(tmp_path: Path) -> None:
    """What clients do is in the file, and the file ends as one that was ended."""
    running = Written(tmp_path, TOML + audit(tmp_path) + noted("one"))
    patron = running.logged_in()
    assert patron.says(b"b DELETE x\r\n") == b"b NO [NOPERM] one\r\n"
    patron.leaves()
    done = running.stops()
    passes(running)
    assert done == [None]
    assert events(tmp_path) == [
        "audit.checkpoint ok", "session.open ok", "auth.success ok", "policy.deny denied", "session.close ok",
        "audit.checkpoint ok",
    ]  # fmt: skip
    denied = records(tmp_path / "audit.jsonl")[3]
    assert (denied["policy.plugin"], denied["command.verb"], denied["user.name"]) == ("one", "DELETE", "alice")
    assert happened[-4:] == ["one closes", "one stops", "threads of plugins stop", "threads of audit trail stop"]


@pytest.mark.parametrize("logged_in", [False, True])
def test_clients_that_do_not_go_are_recorded_all_the_same(tmp_path: Path, logged_in: bool) -> None:
    """A client that does not close is cut off while its end can still be recorded."""
    running = Written(tmp_path, TOML + audit(tmp_path) + "[limits]\ndrain = '1s'\n")
    patron = running.logged_in() if logged_in else Patron(running)
    done = running.stops()
    passes(running, 1.0 + STOP_SECONDS + 0.1)
    assert patron.wire.disconnected
    assert done == []
    patron.leaves()
    passes(running)
    assert done == [None]
    assert events(tmp_path)[-2:] == ["session.close ok", "audit.checkpoint ok"]


def test_records_when_there_is_no_trail_any_more(tmp_path: Path) -> None:
    """What comes too late is in the log, and harms nobody."""
    running = Written(tmp_path, TOML + audit(tmp_path) + "[limits]\ndrain = '1s'\n")
    patron = running.logged_in()
    done = running.stops()
    passes(running, 10.0)
    assert done == [None]
    with logged(trail_module) as lines:
        patron.leaves()
        running.service.record("config.reload", "ok", {})
    assert lines == [
        "error: session.close comes when there is no audit trail",
        "error: config.reload comes when there is no audit trail",
    ]
    assert events(tmp_path)[-1] == "audit.checkpoint ok"


@pytest.mark.parametrize("recorded", [False, True])
def test_plugins_that_fail(tmp_path: Path, recorded: bool) -> None:
    """It is said in the log, and recorded, whose fault it was and where; also when it is the last thing to happen."""
    running = Written(tmp_path, TOML + (audit(tmp_path) if recorded else "") + noted("one", fails="command"))
    patron = running.logged_in()
    with logged(module) as lines:
        assert patron.says(b"b DELETE x\r\n") == b"b NO Refused\r\n"
        running.service._plugin_failed(PluginFault("one", "", "stop", "error", "why"))
    session = patron.protocol.client.session
    assert lines[0].startswith("error: plugin one failed: error in command: RuntimeError: a bug")
    assert lines[0].endswith(f" session={session}")
    assert lines[1] == "error: plugin one failed: error in stop: why session=-"
    patron.leaves()
    running.stops()
    passes(running)
    if recorded:
        first, second = [each for each in records(tmp_path / "audit.jsonl") if each["event"] == "plugin.error"]
        assert (first["outcome"], first["policy.plugin"], first["policy.hook"], first["error.kind"]) == (
            "error", "one", "command", "error",
        )  # fmt: skip
        assert (first["session.id"], second["session.id"]) == (session, "")
        assert first["reason"].startswith("RuntimeError: a bug")


def test_a_plugin_that_fails_at_the_end_is_recorded(tmp_path: Path) -> None:
    """Plugins are stopped before the trail."""
    running = Written(tmp_path, TOML + audit(tmp_path) + noted("one", fails="stop"))
    with logged(module):
        running.stops()
        passes(running)
    assert events(tmp_path)[-2:] == ["plugin.error error", "audit.checkpoint ok"]


# --- another configuration ----------------------------------------------------------------------------


def test_a_reload_with_other_plugins(tmp_path: Path) -> None:
    """Sessions keep the plugins that they began with, which are stopped when the last of those is gone, once."""
    running = Written(tmp_path, TOML + audit(tmp_path) + noted("one"))
    before = running.logged_in()
    running.reloads(TOML + audit(tmp_path) + noted("two"))
    after = running.logged_in(b"bob")
    assert before.says(b"b DELETE x\r\n") == b"b NO [NOPERM] one\r\n"
    assert after.says(b"b DELETE x\r\n") == b"b NO [NOPERM] two\r\n"
    passes(running, 5.0)
    assert plugins("one") == ["one starts"]
    before.leaves()
    passes(running, 2.0)
    assert plugins("one") == ["one starts", "one closes", "one stops"]
    assert running.service._replaced == []
    assert plugins("two") == ["two starts"]
    running.reloads(TOML + audit(tmp_path))
    assert running.service.gate.plugins is None
    after.leaves()
    passes(running, 2.0)
    running.stops()
    passes(running, 1.0)
    assert plugins("one") == ["one starts", "one closes", "one stops"]
    assert plugins("two") == ["two starts", "two closes", "two stops"]
    assert events(tmp_path).count("config.reload ok") == 2
    (reloaded, _) = [each for each in records(tmp_path / "audit.jsonl") if each["event"] == "config.reload"]
    assert reloaded["config.file"] == str(running.file)


def test_sessions_of_earlier_configurations_at_the_end(tmp_path: Path) -> None:
    """Whoever was replaced and was still of use to somebody is stopped with the gate."""
    running = Written(tmp_path, TOML + noted("one"))
    patron = running.logged_in()
    running.reloads(TOML + noted("two"))
    done = running.stops()
    patron.leaves()
    passes(running, 1.0)
    assert done == [None]
    assert plugins("one")[-1] == "one stops"
    assert plugins("two") == ["two starts", "two stops"]


def test_f15_a_reload_whose_plugins_do_not_start(tmp_path: Path) -> None:
    """All stays as it was, those that had started are stopped once, those that had not never, and it can be mended."""
    running = Written(tmp_path, TOML + audit(tmp_path) + noted("old"))
    service = running.service
    before = service.gate, service.assembly, service._factories, dict(running.reactor.listening)
    bad = TOML + THIRD + audit(tmp_path) + noted("new") + noted("bad", fails="start") + noted("last")
    with pytest.raises(ConfigurationError, match=r"^the plugin bad does not start: RuntimeError: no licence \("):
        running.reloads(bad)
    assert (service.gate, service.assembly, service._factories, running.reactor.listening) == before
    assert (plugins("new"), plugins("bad"), plugins("last")) == (["new starts", "new stops"], [], [])
    assert plugins("old") == ["old starts"]
    assert service._replaced == []
    assert happened.count("threads of plugins start") == happened.count("threads of plugins stop") + 1
    assert running.logged_in().says(b"b DELETE x\r\n") == b"b NO [NOPERM] old\r\n"
    running.reloads(bad.replace('"start"', '"stop"'))
    assert plugins("bad") == ["bad starts"]
    assert sorted(running.reactor.listening) == [1143, 3143]


def test_f15_a_port_that_is_taken_stops_the_new_plugins(tmp_path: Path) -> None:
    """Plugins that had started for nothing are stopped, once."""
    running = Written(tmp_path, TOML + noted("old"))
    running.reactor.taken.add(3143)
    with pytest.raises(ConfigurationError, match="cannot listen on tcp:3143"):
        running.reloads(TOML + THIRD + noted("new"))
    assert plugins("new") == ["new starts", "new stops"]
    assert plugins("old") == ["old starts"]


def test_f15_a_bad_file_starts_no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong elsewhere is found before a plugin is started, and none is stopped that was not."""
    running = Written(tmp_path, TOML + noted("old"))

    def broken(*arguments: object) -> None:
        raise ConfigurationError(["a.pem is no certificate"])

    monkeypatch.setattr(running.service, "_entrances", broken)
    with pytest.raises(ConfigurationError, match="no certificate"):
        running.reloads(TOML + noted("new"))
    assert plugins("new") == []
    assert plugins("old") == ["old starts"]


def test_settings_of_the_trail_change_with_a_restart(tmp_path: Path) -> None:
    """Another file in the configuration is said to change nothing yet, and the trail goes on."""
    running = Written(tmp_path, TOML + audit(tmp_path))
    with logged(module) as lines:
        running.reloads(TOML)
        running.reloads(TOML + audit(tmp_path))
    assert lines == ["warn: the audit trail goes on as it was: its settings change with a restart only"] * 2
    patron = running.logged_in()
    patron.leaves()
    passes(running)
    assert events(tmp_path)[-3:] == ["session.open ok", "auth.success ok", "session.close ok"]


# --- SIGHUP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faulty", [False, True])
def test_sighup_opens_the_file_anew(tmp_path: Path, faulty: bool) -> None:
    """After logrotate has renamed it the trail goes on in a new file, whatever is wrong with the configuration."""
    running = Written(tmp_path, TOML + audit(tmp_path))
    passes(running)
    (tmp_path / "audit.jsonl").rename(tmp_path / "audit.jsonl.1")
    running.file.write_text("[[listener" if faulty else TOML + audit(tmp_path))
    signal.raise_signal(signal.SIGHUP)
    with logged(module):
        passes(running)
    assert events(tmp_path, "audit.jsonl.1") == ["audit.checkpoint ok"] * 2
    assert events(tmp_path) == ["audit.checkpoint ok", f"config.reload {'error' if faulty else 'ok'}"]
    first, last = records(tmp_path / "audit.jsonl")
    assert first["previous"] == records(tmp_path / "audit.jsonl.1")[-1]["hash"]
    if faulty:
        assert "not valid TOML" in last["reason"]


def test_sighup_without_a_trail(tmp_path: Path) -> None:
    """There is nothing to open, and nothing to record."""
    running = Written(tmp_path)
    with logged(module) as lines:
        running.service.reloaded()
        running.service.record("config.reload", "ok", {})
    assert lines == ["info: configuration and certificates reloaded"]
