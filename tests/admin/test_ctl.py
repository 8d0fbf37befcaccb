"""``imapgate ctl``: what it asks, what it prints, and what it says when there is nobody to ask."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from imapgate.admin import ctl as module
from imapgate.admin.control import CONNECTIONS
from imapgate.admin.ctl import duration, table
from imapgate.admin.operator import COMMANDS, Kind, Refused, Row
from imapgate.cli import main
from tests.admin.fakes import ROWS, FakeOperator, serving, soon

TABLE = """\
session       user              idle  commands  mailbox
91f13aea8801  alice             3.2s         5  -
7296a56aeed9  bob@example.org  1h06m      1200  INBOX
"""


async def ctl(*words: str | Path) -> int:
    """Run the command in a thread, while this one serves."""
    return await soon(deferToThread(main, ["ctl", *map(str, words)]))


@contextmanager
def started(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, with its output buffered, as it is for scripts."""
    program = (  # Ctrl-C may be ignored where the tests run in the background
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from imapgate.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "ctl", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# -- with a gate -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people: aligned columns, numbers to the right, durations as people write them."""
    path = tmp_path / "control"
    async with serving(FakeOperator(), path):
        assert await ctl("--control", path, "sessions") == 0
    assert capsys.readouterr() == (TABLE, "")


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
@pytest.mark.parametrize("behind", [False, True])
async def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], behind: bool) -> None:
    """For scripts: one object for each row, as the gate has it; the option may stand before the command or behind."""
    path = tmp_path / "control"
    async with serving(FakeOperator(), path):
        words = ["sessions", "--json"] if behind else ["--json", "sessions"]
        assert await ctl(*words, "--control", path) == 0
    out, err = capsys.readouterr()
    assert ([json.loads(line) for line in out.splitlines()], err) == (list(ROWS), "")


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_nothing_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer without rows is a word to people, and nothing to scripts."""
    path, operator = tmp_path / "control", FakeOperator()
    operator.rows = []
    async with serving(operator, path):
        assert await ctl("--control", path, "pins") == 0
        assert await ctl("--control", path, "reload") == 0
        assert await ctl("--control", path, "pins", "--json") == 0
    assert capsys.readouterr() == ("none\ndone\n", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["kick", "alice"], ("kick", {"who": "alice"})),
        (["pause"], ("pause", {})),
        (["pause", "legacy"], ("pause", {"upstream": "legacy"})),
        (["move", "jürgen", "new"], ("move", {"user": "jürgen", "upstream": "new"})),
        (["shutdown"], ("shutdown", {})),
        (["shutdown", "--wait"], ("shutdown", {"wait": ""})),
    ],
)
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_arguments(tmp_path: Path, words: list[str], expected: tuple[str, dict[str, str]]) -> None:
    """What was given on the command line reaches the operator, and nothing else."""
    operator = FakeOperator()
    async with serving(operator, tmp_path / "control"):
        assert await ctl(*words, "--control", tmp_path / "control") == 0
    assert operator.asked == [expected]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is refused is said on standard error, with status 1."""
    full, reading = tmp_path / "control", tmp_path / "control-read"
    async with serving(FakeOperator(), full, reading):
        assert await ctl("--control", reading, "reload") == 1
        assert await ctl("--control", full, "trace", "alice", "--seconds", "soon") == 1
        assert await ctl("--control", full, "kick", "a\nb") == 1
        assert await ctl("--control", full, "kick", "a" * 9000) == 1
    out, err = capsys.readouterr()
    first, second, third, fourth = err.splitlines()
    assert first == f"imapgate ctl: this socket is for reading and does not take reload; {full} takes it"
    assert second == 'imapgate ctl: trace: "soon" is not what seconds can be: an option: whole seconds'
    assert third == r'imapgate ctl: kick: "a\nb" is not what who can be: a word'
    assert fourth == "imapgate ctl: a request has at most 8192 octets"
    assert out == ""


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_refused_for_several_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The operator may have several lines to say; nothing else that moves the cursor gets through."""
    path, operator = tmp_path / "control", FakeOperator()
    operator.fault = Refused("all stays as it was:\na.toml: \x1bfirst\na.toml: second")
    async with serving(operator, path):
        assert await ctl("--control", path, "reload") == 1
    told = "imapgate ctl: all stays as it was:\na.toml: \\x1bfirst\na.toml: second\n"
    assert capsys.readouterr() == ("", told)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace prints each row as it comes, and ends well when the gate stops."""
    path, operator = tmp_path / "control", FakeOperator()
    async with serving(operator, path):
        running = deferToThread(main, ["ctl", "--control", str(path), "trace", "alice", "--seconds", "600"])
        assert await soon(operator.traced) == ("alice", 600)
        operator.write({"time": "00:37:55", "side": "C", "text": "A003 SELECT \x1b[2J"})
    assert await soon(running) == 0
    assert operator.stopped.called
    assert capsys.readouterr() == ("00:37:55 C A003 SELECT \\x1b[2J\n", "")


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_an_interrupted_trace(tmp_path: Path) -> None:
    """Ctrl-C ends a trace well, here and in the gate."""
    path, operator = tmp_path / "control", FakeOperator()
    async with serving(operator, path):
        with started("--control", path, "trace", "alice", "--json") as process:
            await soon(operator.traced)
            operator.write({"text": "A003 NOOP"})
            assert process.stdout is not None
            assert await soon(deferToThread(process.stdout.readline)) == '{"text": "A003 NOOP"}\n'
            process.send_signal(signal.SIGINT)
            await soon(operator.stopped)
            assert await soon(deferToThread(process.communicate)) == ("", "")
            assert process.returncode == 0


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_an_interrupted_command(tmp_path: Path) -> None:
    """Ctrl-C ends the waiting for a command with status 1; the gate goes on with it."""
    path, operator = tmp_path / "control", FakeOperator()
    async with serving(operator, path):
        operator.held = Deferred()
        with started("--control", path, "drain") as process:
            assert await soon(operator.acted) == "drain"
            process.send_signal(signal.SIGINT)
            assert await soon(deferToThread(process.communicate)) == ("", "")
            assert process.returncode == 1
        operator.held.callback(None)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_reader_that_has_enough(tmp_path: Path) -> None:
    """Behind it may stand a program that does not read everything, such as head."""
    path, operator = tmp_path / "control", FakeOperator()
    operator.rows = [{"number": number} for number in range(100_000)]
    async with serving(operator, path):
        with started("--control", path, "--json", "sessions") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert await soon(deferToThread(process.stdout.readline)) == '{"number": 0}\n'
            process.stdout.close()
            assert await soon(deferToThread(process.stderr.read)) == ""
            assert await soon(deferToThread(process.wait)) == 0


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    """It may even have gone before the first row, which then fails only when all is printed."""
    path, operator = tmp_path / "control", FakeOperator()
    async with serving(operator, path):
        operator.held = Deferred()
        with started("--control", path, "reload") as process:
            await soon(operator.acted)
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            operator.held.callback(None)
            assert await soon(deferToThread(process.stderr.read)) == ""
            assert await soon(deferToThread(process.wait)) == 0


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_too_many_at_one_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One too many is told so, though the gate closes before it has read what is asked."""
    path = tmp_path / "control"
    async with serving(FakeOperator(), path) as control:
        wires = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS)]
        try:
            for wire in wires:
                await deferToThread(wire.connect, os.fsencode(path))
            assert await ctl("--control", path, "stats") == 1
        finally:
            for wire in wires:
                wire.close()
        assert control.running
    assert f"{CONNECTIONS} others are here already" in capsys.readouterr().err


# -- without a gate ----------------------------------------------------------------------------------------------------


def _nothing(path: Path) -> str:
    return "there is no such socket"


def _dead(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fsencode(path))
    return "nobody listens there"


def _file(path: Path) -> str:
    path.touch()
    return "nobody listens there"


@pytest.mark.parametrize("make", [_nothing, _dead, _file])
@pytest.mark.parametrize("name", ["environment", "option"])
def test_no_gate(
    tmp_path: Path,
    make: Callable[[Path], str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It says which path it tried, what is wrong with it and what to do; the option goes before the environment."""
    path = tmp_path / "control"
    why = make(path)
    monkeypatch.setenv("IMAPGATE_CONTROL", str(path if name == "environment" else tmp_path / "other"))
    words = ["--control", str(path)] if name == "option" else []
    assert main(["ctl", *words, "stats"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"imapgate ctl: {path}: {why}")


def test_the_usual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without option and environment it is the path that the systemd unit makes."""
    tried: list[Path] = []
    monkeypatch.delenv("IMAPGATE_CONTROL", raising=False)

    def ask(path: Path, *rest: object) -> Iterator[Row]:
        tried.append(path)
        return iter(())

    monkeypatch.setattr(module, "ask", ask)
    assert main(["ctl", "stats"]) == 0
    assert tried == [Path("/run/imapgate/control")]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (PermissionError(13, "Permission denied"), "not allowed; only its owner"),
        (ConnectionResetError(104, "Connection reset"), "the gate has closed the connection"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "Resource temporarily unavailable"),
        (TimeoutError("timed out"), "the gate does not answer"),
        (OSError("AF_UNIX path too long"), "AF_UNIX path too long"),
    ],
)
def test_other_errors(
    error: OSError, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the system says comes out as one line that names the path."""

    def connect(wire: socket.socket, path: bytes) -> None:
        raise error

    monkeypatch.setattr(socket.socket, "connect", connect)
    assert main(["ctl", "--control", "c", "stats"]) == 1
    assert capsys.readouterr().err.startswith(f"imapgate ctl: c: {why}")


@contextmanager
def impostor(path: Path, said: bytes) -> Iterator[None]:
    """Somebody who says this to whoever comes first, and closes."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fsencode(path))
        listening.listen()

        def serve() -> None:
            wire, _ = listening.accept()
            with wire:
                wire.recv(1000)
                wire.send(said)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(20)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "closed the connection before it was done"),
        (b'{"row": {"a": 1}}\n', "closed the connection before it was done"),
        (b"* OK imapgate ready\r\n", "is no gate"),
        (b"[]\n", "is no gate"),
        (b"7\n", "is no gate"),
        (b'{"row": 7}\n', "is no gate"),
        (b'{"done": null}\n', "is no gate"),
        (b"\xff\n", "is no gate"),
        (b'{"error": "\\u001b[2J"}\n', "\\x1b[2J"),
        (b'{"error": ["a"]}\n', "['a']"),
    ],
)
def test_odd_answers(tmp_path: Path, said: bytes, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer that breaks off or is none is no success, and no traceback."""
    with impostor(tmp_path / "c", said):
        assert main(["ctl", "--control", str(tmp_path / "c"), "stats"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert why in err
    assert len(err.splitlines()) == 1


def test_a_gate_that_closes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the gate says before it closes is heard, though it has not taken the request."""

    def sendall(wire: socket.socket, data: bytes) -> None:
        wire.send(b"\n")
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(socket.socket, "sendall", sendall)
    with impostor(tmp_path / "c", b'{"error": "go away"}\n'):
        assert main(["ctl", "--control", str(tmp_path / "c"), "stats"]) == 1
    assert capsys.readouterr() == ("", "imapgate ctl: go away\n")


def test_what_was_dropped_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that the gate did not keep for a slow reader are counted on standard error."""
    with impostor(tmp_path / "c", b'{"dropped": 3}\n{"row": {"text": "x"}}\n{"done": 1}\n'):
        assert main(["ctl", "--control", str(tmp_path / "c"), "trace", "alice"]) == 0
    assert capsys.readouterr() == ("x\n", "imapgate ctl: 3 rows were dropped, this end is too slow\n")


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["no-such"],
        ["kick"],
        ["sessions", "alice"],
        ["move", "alice"],
        ["trace", "a", "--seconds"],
        ["stats", "--x"],
    ],
)
def test_not_understood(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is not understood is told with the usage, and the status is 2."""
    with pytest.raises(SystemExit) as ended:
        main(["ctl", *words])
    assert ended.value.code == 2
    assert "usage: imapgate" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command has its help, with every argument."""
    with pytest.raises(SystemExit) as ended:
        main(["ctl", name, "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for argument in COMMANDS[name].arguments:
        positional = argument.kind in (Kind.WORD, Kind.OPTIONAL)
        assert (argument.name.upper() if positional else f"--{argument.name}") in text
        assert argument.help in text


# -- tables ------------------------------------------------------------------------------------------------------------


def test_a_tables_columns() -> None:
    """Columns are in the order of their first appearance; a column of numbers stands to the right, others do not."""
    rows: list[Row] = [
        {"name": "a", "number": 1, "mixed": 1, "share": 0.5, "good": True},
        {"name": "bcd", "number": 1000, "mixed": "x", "share": None, "good": False, "late": ""},
    ]
    assert table(rows) == (
        "name  number  mixed  share  good  late\n"
        "a          1  1        0.5   yes  -\n"
        "bcd     1000  x          -    no  -"
    )  # fmt: skip
    assert table([]) == ""


def test_a_terminal_is_safe() -> None:
    """Nothing that a client chose reaches the terminal as anything but text, in names of columns too."""
    shown = table([{"user\x07": "eve\x1b]0;x\x07\r\n\u202eliame", "mailbox": "Entwürfe"}])
    assert "Entwürfe" in shown
    assert all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 2


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (0.0042, "4ms"),
        (0.25, "0.2s"),
        (3.0, "3s"),
        (9.96, "10.0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (3599.7, "1h00m"),
        (4000, "1h06m"),
        (86_399, "23h59m"),
        (93_600, "1d02h"),
        (8_640_000, "100d00h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    """The two largest units, or one."""
    assert duration(seconds) == shown
