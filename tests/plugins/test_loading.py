"""Plugins are found, made and verified; every fault is told with its place and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from imapgate.errors import ConfigurationError
from imapgate.plugins import bundled
from imapgate.plugins.api import Event, Interests, OptionError, Options, Plugin
from imapgate.plugins.bundled import readonly
from imapgate.plugins.loading import Entry, Loaded, load

HEAD = "from imapgate.plugins.api import *\n"
GOOD = """
    class Watch(Plugin):
        interests = Interests(verbs=None)
    """


class Watch(Plugin):
    """Sees every command."""

    interests = Interests(verbs=None)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Write modules into a folder on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(HEAD + dedent(text) if name.endswith(".py") else dedent(text))

    yield write
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def faults(*entries: Entry) -> list[str]:
    """Return what is wrong with them."""
    with pytest.raises(ConfigurationError) as caught:
        load(entries)
    return caught.value.problems


# --- found ------------------------------------------------------------------------------------------------------------


def test_bundled() -> None:
    """A bundled plugin is found by its name."""
    [one] = load([Entry("readonly", {"level": "none"})])
    assert type(one.plugin) is readonly.PLUGIN
    assert one.name == "readonly"


def test_bundled_but_no_plugin(write: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the bundled plugins share is none."""
    write("pack/_shared.py", f"{dedent(GOOD)}PLUGIN = Watch")
    write("pack/watch.py", f"{dedent(GOOD)}PLUGIN = Watch")
    monkeypatch.setattr(bundled, "__path__", [f"{sys.path[0]}/pack"])
    assert load([Entry("watch")])
    assert faults(Entry("_shared"))[0].startswith(
        'plugin[0].use: no plugin is called "_shared"; expected one of watch, '
    )


@pytest.mark.parametrize("path", ["acme.plugins.Watch", "acme.plugins:Watch"])
def test_dotted_path(write: Callable[[str, str], None], path: str) -> None:
    """A class is found by its dotted path."""
    write("acme/__init__.py", "")
    write("acme/plugins.py", GOOD)
    [one] = load([Entry(path, name="mine")])
    assert (type(one.plugin).__name__, one.name) == ("Watch", "mine")


def test_entry_point(write: Callable[[str, str], None]) -> None:
    """A class is found by the name that an installed distribution gives it."""
    write("acme_gate-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: acme-gate\nVersion: 1.0\n")
    write("acme_gate-1.0.dist-info/entry_points.txt", "[imapgate.plugins]\nacme-watch = acme_gate:Watch\n")
    write("acme_gate.py", GOOD)
    [one] = load([Entry("acme-watch")])
    assert (type(one.plugin).__module__, one.name) == ("acme_gate", "acme-watch")
    assert '"acme-watch"?' in faults(Entry("acme-wach"))[0]


def test_class_itself() -> None:
    """A test gives the class itself."""
    [one] = load([Entry(Watch)])
    assert (type(one.plugin), one.name) == (Watch, "Watch")


def test_order() -> None:
    """Plugins stand in the order of the configuration."""
    assert [one.name for one in load([Entry(Watch, name=name) for name in "cab"])] == ["c", "a", "b"]
    assert load([]) == []


# --- options ----------------------------------------------------------------------------------------------------------


def test_common_options() -> None:
    """What every plugin can be told is taken from its table, the rest is its own."""
    taken: list[Any] = []

    class Mine(Watch):
        on_timeout = "open"

        def __init__(self, options: Options) -> None:
            taken.extend([options.text("colour"), options.path("file")])

    options = {
        "users": ["a@*", "b"],
        "timeout": "2s",
        "on_error": "open",
        "failures": 3,
        "pause": "1m",
        "colour": "red",
        "file": "x",
    }
    [one] = load([Entry(Mine, options, Path("/etc"))])
    assert one == Loaded("Mine", one.plugin, Watch.interests, ("a@*", "b"), 2.0, "open", "open", 3, 60.0, False)
    assert taken == ["red", Path("/etc/x")]


def test_defaults() -> None:
    """Without a word on it, everyone is concerned, and failures are refusals."""
    [one] = load([Entry(Watch)])
    assert one == Loaded("Watch", one.plugin, Watch.interests, None, 5.0, "closed", "closed", 5, 30.0, False)


def test_what_a_plugin_declares() -> None:
    """What a plugin says of itself is kept as it was when it was made."""

    class Mine(Plugin):
        threaded = True
        on_error = "open"

        def __init__(self, options: Options) -> None:
            self.interests = Interests({"NOOP"}, events={Event.TLS})  # type: ignore[arg-type]

    [one] = load([Entry(Mine)])
    assert one.interests == Interests(frozenset(["NOOP"]), events=frozenset([Event.TLS]))
    assert (one.threaded, one.on_error, one.on_timeout) == (True, "open", "closed")


POLICIES = 'one of "closed", "open"'


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            {"users": []},
            "plugin[0].users: an empty list concerns nobody; name users, or remove the key: then it is everyone",
        ),
        ({"users": "alice"}, 'plugin[0].users: expected a list of strings; got "alice"'),
        ({"users": [""]}, "plugin[0].users[0]: expected a string that is not empty and has no control characters"),
        (
            {"timeout": 0},
            'plugin[0].timeout: expected a duration such as "30s", "5m" or a number of seconds, more than 0s to "7d"; '
            "got 0",
        ),
        ({"on_error": "close"}, f'plugin[0].on_error: expected {POLICIES}; got "close". Did you mean "closed"?'),
        ({"on_timeout": True}, f"plugin[0].on_timeout: expected {POLICIES}; got true"),
        ({"failures": 0}, "plugin[0].failures: expected a whole number from 1 to 1000000; got 0"),
        (
            {"pause": "never"},
            'plugin[0].pause: expected a duration such as "30s", "5m" or a number of seconds, more than 0s to "7d"; '
            'got "never"',
        ),
        (
            {"user": ["a"]},
            "plugin[0].user: unknown option; expected one of failures, on_error, on_timeout, pause, timeout, users. "
            'Did you mean "users"?',
        ),
    ],
)
def test_faulty_options(options: dict[str, object], fault: str) -> None:
    """A fault of an option is told with its key, and what was expected."""
    assert faults(Entry(Watch, options)) == [fault]


def test_faults_of_a_plugin_of_its_own() -> None:
    """What a plugin says of its options is told with the place of the option."""

    class Mine(Watch):
        def __init__(self, options: Options) -> None:
            for rule in options.tables("rules"):
                if rule.text("verb") == "NOOP":
                    raise rule.fault("verb", "NOOP does nothing; remove the rule")

    entry = Entry(Mine, {"rules": [{"verb": "CHECK"}, {"verb": "NOOP"}]})
    assert faults(entry) == ["plugin[0].rules[1].verb: NOOP does nothing; remove the rule"]


def test_all_faults_at_once() -> None:
    """Every plugin's faults are told in one go."""
    found = faults(Entry(Watch, {"timeout": 0, "pause": 0, "x": 1}), Entry(Watch), Entry("no.such.Thing"))
    assert [fault.split(":")[0] for fault in found] == [
        "plugin[0].timeout",
        "plugin[0].pause",
        "plugin[0].x",
        "plugin[2].use",
    ]


# --- faults -----------------------------------------------------------------------------------------------------------


def test_unknown_names() -> None:
    """Of a name that is none, the ones that there are are told, and the nearest."""
    [fault] = faults(Entry("readnoly"))
    assert fault.startswith('plugin[0].use: no plugin is called "readnoly"; expected one of ')
    assert fault.endswith(
        ', or the dotted path of a class, such as "mypackage.mymodule.MyPlugin". Did you mean "readonly"?'
    )
    assert "readonly" in fault.split(", or the")[0]
    for name in ("a b.c", "a..b", ".a", "a.", "1.b", ""):
        [fault] = faults(Entry(name))
        assert fault.startswith("plugin[0].use: no plugin is called ")


DERIVE = "; derive its class from imapgate.plugins.api.Plugin"
MODULES = {
    "missing": ("", "no_such_package.module.Watch", 'there is no module "no_such_package"; install it for the Python '),
    "missing inside": ("", "odd.module.Watch", 'there is no module "odd.module"; install it for the Python '),
    "needs another": (
        "import no_such_thing",
        "odd.Watch",
        'odd needs the module "no_such_thing", which is not installed',
    ),
    "syntax": ("def", "odd.Watch", "importing odd failed: SyntaxError: invalid syntax (odd.py, line 2)"),
    "raises": ("\n1 / 0", "odd.Watch", "importing odd failed: ZeroDivisionError: division by zero (odd, line 3)"),
    "exits": ("raise SystemExit(3)", "odd.Watch", "importing odd failed: SystemExit: 3 (odd, line 2)"),
    "no such class": ("class Watch: pass", "odd.Wacth", 'odd has no Wacth. Did you mean "Watch"?'),
    "no class": ("Watch = 3", "odd.Watch", "odd.Watch is no class, but of type int"),
    "no plugin": (
        "class Watch:\n    def __init__(self, options): pass",
        "odd.Watch",
        f'"odd.Watch" is no plugin: it has no interests, it has no threaded, it has no on_error, …{DERIVE}',
    ),
    "not declared": (
        "class Watch:\n    def __init__(self, options): pass\n"
        "for name in IPlugin: setattr(Watch, name, getattr(Plugin, name))",
        "odd.Watch",
        f'"odd.Watch" is no plugin{DERIVE}',
    ),
    "wrong method": (
        "class Watch(Plugin):\n    def command(self, command): pass",
        "odd.Watch",
        '"odd.Watch" is no plugin: of command(session, command) the implementation '
        f"doesn't allow enough arguments{DERIVE}",
    ),
    "no method": (
        "class Watch(Plugin):\n    stop = None",
        "odd.Watch",
        f'"odd.Watch" is no plugin: of stop() the implementation is not a method{DERIVE}',
    ),
    "no options": (
        "class Watch(Plugin):\n    def __init__(self): pass",
        "odd.Watch",
        '"odd.Watch" could not be made: TypeError: Watch.__init__() takes 1 positional argument but 2 were given',
    ),
    "raises when made": (
        "class Watch(Plugin):\n    def __init__(self, options): raise OSError('no\\nway')",
        "odd.Watch",
        '"odd.Watch" could not be made: OSError: no way (odd, line 3)',
    ),
}


@pytest.mark.parametrize("which", MODULES)
def test_faulty_modules(write: Callable[[str, str], None], which: str) -> None:
    """Whatever is wrong with a module is told in a sentence, and where in it."""
    text, use, fault = MODULES[which]
    write("odd.py", text)
    [found] = faults(Entry(use))
    assert found.startswith(f"plugin[0].use: {fault}")
    assert found.isprintable()


WANTED = "is no plugin: expected in its interests"
INTERESTS: list[tuple[Any, str]] = [
    (None, "is no plugin: its interests are no Interests, but of type NoneType"),
    (Interests(), "would never be asked: it declares no interests"),
    (Interests("NOOP"), "is no plugin: expected as its interests.verbs a frozenset; got str"),  # type: ignore[arg-type]
    (Interests(frozenset(["noop"])), f"{WANTED}.verbs a verb such as UID FETCH, upper case; got 'noop'"),
    (Interests(frozenset([b"NOOP"])), f"{WANTED}.verbs a verb such as UID FETCH, upper case; got b'NOOP'"),  # type: ignore[list-item]
    (Interests(frozenset(["LOGIN"])), "is no plugin: nobody is asked about LOGIN; for a login it is Event.CREDENTIALS"),
    (
        Interests(frozenset(["LOGOUT"])),
        "is no plugin: nobody is asked about LOGOUT; for a login it is Event.CREDENTIALS",
    ),
    (Interests(completions=["NOOP"]), "is no plugin: expected as its interests.completions a frozenset; got list"),  # type: ignore[arg-type]
    (
        Interests(responses=frozenset(["* EXISTS"])),
        f"{WANTED}.responses a first word such as EXISTS, upper case; got '* EXISTS'",
    ),
    (Interests(events=Event.TLS), "is no plugin: expected as its interests.events a frozenset of members of Event"),  # type: ignore[arg-type]
    (
        Interests(events=frozenset(["TLS"])),
        "is no plugin: expected as its interests.events a frozenset of members of Event",
    ),  # type: ignore[list-item]
    (Interests(message=-1), "is no plugin: expected as its interests.message a number of octets"),
    (Interests(message="1"), "is no plugin: expected as its interests.message a number of octets"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("interests", "fault"), INTERESTS, ids=[repr(row[0])[:60] for row in INTERESTS])
def test_faulty_interests(interests: Any, fault: str) -> None:
    """What could never come up is refused, so that no filter is left unasked by a slip of the keyboard."""
    made = type("Mine", (Plugin,), {"interests": interests})
    assert faults(Entry(made)) == [f'plugin[0].use: "Mine" {fault}']


@pytest.mark.parametrize("policy", ["on_error", "on_timeout"])
def test_faulty_policies(policy: str) -> None:
    """A policy of a plugin's own is one of the two."""
    made = type("Mine", (Watch,), {policy: "close"})
    assert faults(Entry(made)) == [f'plugin[0].use: "Mine" is no plugin: its {policy} is neither "closed" nor "open"']


def test_an_option_error_of_another_place() -> None:
    """An OptionError that a plugin made itself is told as it is."""

    def make(options: Options) -> Plugin:
        raise OptionError("somewhere", "is wrong")

    assert faults(Entry(type("Mine", (Watch,), {"__init__": lambda self, options: make(options)}))) == [
        "somewhere: is wrong"
    ]
