"""A plugin's options, read strictly."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from imapgate.plugins.options import REQUIRED, OptionError, Options


def test_values() -> None:
    """Each kind of option is read as it is written."""
    options = Options(
        {
            "level": "none",
            "strict": True,
            "most": 7,
            "wait": "1.5m",
            "pause": 2,
            "size": "25MiB",
            "octets": 12,
            "verbs": ["DELETE", "RENAME"],
            "networks": ["192.0.2.0/24", "2001:db8::1"],
            "file": "list.txt",
            "rules": [{"verb": "DELETE"}, {"verb": "RENAME"}],
            "limits": {"hour": 60},
        },
        Path("/etc/imapgate"),
    )
    assert "level" in options
    assert options.choice("level", ("none", "full")) == "none"
    assert options.flag("strict") is True
    assert options.number("most") == 7
    assert options.duration("wait") == 90.0
    assert options.duration("pause") == 2.0
    assert options.size("size") == 25 << 20
    assert options.size("octets") == 12
    assert options.texts("verbs") == ("DELETE", "RENAME")
    assert options.networks("networks") == (ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128"))
    assert options.path("file") == Path("/etc/imapgate/list.txt")
    assert [rule.text("verb") for rule in options.tables("rules")] == ["DELETE", "RENAME"]
    assert options.table("limits").number("hour") == 60
    options.finish()


def test_defaults() -> None:
    """An option that is not there is its default, a list or a table an empty one."""
    options = Options({})
    assert "level" not in options
    assert options.text("a", "x") == "x"
    assert options.flag("b", False) is False
    assert options.number("c", 3) == 3
    assert options.duration("d", 4.0) == 4.0
    assert options.size("e", 5) == 5
    assert options.choice("f", ("x",), "") == ""
    assert options.texts("g") == ()
    assert options.texts("g", ("x",)) == ("x",)
    assert options.networks("h") == ()
    assert options.path("i", Path("x")) == Path("x")
    assert options.tables("j") == []
    options.table("k").finish()
    options.finish()


NUMBER = "a whole number from 0 to 1000000"
DURATION = 'a duration such as "30s", "5m" or a number of seconds, more than 0s to "7d"'
SIZE = 'a size such as "64KiB", "1MiB" or a number of octets, from 0 to 1099511627776'
WRONG: list[tuple[Callable[[Options], Any], Any, str, str]] = [
    (lambda o: o.text("x"), 3, "x", "expected a string; got 3"),
    (lambda o: o.text("x"), "", "x", "expected a string that is not empty and has no control characters"),
    (lambda o: o.text("x"), "se\ncret", "x", "expected a string that is not empty and has no control characters"),
    (lambda o: o.flag("x"), "yes", "x", 'expected true or false; got "yes"'),
    (lambda o: o.flag("x"), "True", "x", 'expected true or false; got "True". Did you mean true, without quotes?'),
    (lambda o: o.number("x"), True, "x", f"expected {NUMBER}; got true"),
    (lambda o: o.number("x"), -1, "x", f"expected {NUMBER}; got -1"),
    (lambda o: o.number("x"), 1 << 99, "x", f"expected {NUMBER}; got a number of more than 64 bits"),
    (lambda o: o.number("x", least=1, most=2), 1.5, "x", "expected a whole number from 1 to 2; got 1.5"),
    (lambda o: o.duration("x"), "5 minutes", "x", f'expected {DURATION}; got "5 minutes"'),
    (lambda o: o.duration("x"), 0, "x", f"expected {DURATION}; got 0"),
    (lambda o: o.duration("x"), "8d", "x", f'expected {DURATION}; got "8d"'),
    (lambda o: o.duration("x"), float("nan"), "x", f"expected {DURATION}; got nan"),
    (lambda o: o.duration("x"), True, "x", f"expected {DURATION}; got true"),
    (
        lambda o: o.duration("x", zero=True),
        -1,
        "x",
        'expected a duration such as "30s", "5m" or a number of seconds, 0s to "7d"; got -1',
    ),
    (lambda o: o.size("x"), "25MB", "x", f'expected {SIZE}; got "25MB"'),
    (lambda o: o.size("x"), True, "x", f"expected {SIZE}; got true"),
    (lambda o: o.size("x", most=10), "1KiB", "x", f'expected {SIZE[:-13]}10; got "1KiB"'),
    (
        lambda o: o.choice("x", ("none", "full")),
        "Fulll",
        "x",
        'expected one of "none", "full"; got "Fulll". Did you mean "full"?',
    ),
    (lambda o: o.choice("x", ("none",)), 5, "x", 'expected "none"; got 5'),
    (lambda o: o.texts("x"), "DELETE", "x", 'expected a list of strings; got "DELETE"'),
    (lambda o: o.texts("x"), ["DELETE", 5], "x[1]", "expected a string; got 5"),
    (lambda o: o.networks("x"), {}, "x", "expected a list of networks; got a table"),
    (
        lambda o: o.networks("x"),
        ["here"],
        "x[0]",
        'expected a network such as "192.0.2.0/24" or "2001:db8::/32"; got "here"',
    ),
    (
        lambda o: o.networks("x"),
        ["192.0.2.1/24"],
        "x[0]",
        'expected a network without host bits; got "192.0.2.1/24". Did you mean "192.0.2.0/24"?',
    ),
    (lambda o: o.path("x"), [], "x", "expected a string; got a list"),
    (lambda o: o.table("x"), "y" * 61, "x", f'expected a table; got "{"y" * 60}"…'),
    (lambda o: o.tables("x"), {}, "x", "expected a list of tables; got a table"),
    (lambda o: o.tables("x"), [{}, 1], "x[1]", "expected a table; got 1"),
    (lambda o: o.table("x").number("odd key"), {"odd key": ""}, 'x."odd key"', f'expected {NUMBER}; got ""'),
]


@pytest.mark.parametrize(("read", "value", "key", "text"), WRONG)
def test_faults(read: Callable[[Options], Any], value: object, key: str, text: str) -> None:
    """What does not fit is refused with its key, what was expected, and what was there (unless it may be a secret)."""
    with pytest.raises(OptionError) as caught:
        read(Options({"x": value}))
    assert (caught.value.key, str(caught.value)) == (key, text)


def test_zero_is_a_duration_where_it_may_be() -> None:
    """A duration of nothing is one where that was asked for."""
    assert Options({"x": 0}).duration("x", zero=True) == 0.0


def test_missing() -> None:
    """An option without a default must be there."""
    options = Options({}, key="plugin[0]")
    with pytest.raises(OptionError, match=r"^missing; expected true or false$") as caught:
        options.flag("strict")
    assert caught.value.key == "plugin[0].strict"
    with pytest.raises(OptionError, match=r"^missing; expected a list of strings$"):
        options.texts("verbs", REQUIRED)


def test_unknown() -> None:
    """What nobody asked for is refused, in inner tables, too, with the nearest name and all others."""
    options = Options({"levle": "none", "rules": [{"x": 1}]}, key="plugin[0]")
    options.choice("level", ("none",), "none")
    options.tables("rules")
    with pytest.raises(OptionError, match=r'^unknown option; expected one of level, rules. Did you mean "level"\?$'):
        options.finish()
    options = Options({"rules": [{"x": 1}]})
    rules = options.tables("rules")
    with pytest.raises(OptionError, match=r"^unknown option; expected none$") as caught:
        options.finish()
    assert caught.value.key == "rules[0].x"
    assert rules[0].text("colour", "") == ""
    with pytest.raises(OptionError, match=r"^unknown option; expected colour$"):
        options.finish()


def test_own_faults() -> None:
    """A plugin may refuse an option for a reason of its own, or the table as a whole."""
    options = Options({}, key="plugin[0]")
    assert (options.fault("url", "no").key, str(options.fault("url", "no"))) == ("plugin[0].url", "no")
    assert options.fault("", "no").key == "plugin[0]"
    assert Options({}).fault("", "no").key == ""
