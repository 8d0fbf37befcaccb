"""The plugins of a configuration: their names are checked, their options by themselves when they are loaded."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from imapgate.config import from_options, load_plugins, parse
from imapgate.config.types import PluginEntry
from imapgate.errors import ConfigurationError
from imapgate.plugins.api import Interests, Options, Plugin
from tests.config.configurations import PLAIN, problems_in


def test_plugins(tmp_path: Path) -> None:
    """They arrive in order, with every option as it was written, and what its paths are relative to."""
    text = """
    [[plugin]]
    use = "readonly"
    level = "none"
    users = ["auditor@*"]
    [[plugin]]
    use = "example.filters:NoDelete"
    name = "no-delete"
    on_error = "open"
    rules = [{ domain = "example.org" }]
    [plugin.deep]
    x = { y = 1.5 }
    """
    assert parse(tomllib.loads(PLAIN + text), "x", tmp_path).plugins == (
        PluginEntry("readonly", "readonly", {"level": "none", "users": ["auditor@*"]}, tmp_path),
        PluginEntry(
            "example.filters:NoDelete",
            "no-delete",
            {"on_error": "open", "rules": [{"domain": "example.org"}], "deep": {"x": {"y": 1.5}}},
            tmp_path,
        ),
    )
    assert parse(tomllib.loads(PLAIN), "x", tmp_path).plugins == ()


def test_one_plugin_twice(tmp_path: Path) -> None:
    """A plugin may be used twice, with different options, under two names."""
    text = "[[plugin]]\nuse = 'readonly'\n[[plugin]]\nuse = 'readonly'\nname = 'other'"
    assert [plugin.name for plugin in parse(tomllib.loads(PLAIN + text), "x", tmp_path).plugins] == [
        "readonly",
        "other",
    ]


REFUSED: list[tuple[str, str]] = [
    ("[plugin]\nuse = 'x'", "plugin: expected a list of tables; got a table. Write [[plugin]]"),
    ("[[plugin]]", 'plugin[0].use: missing; expected a plugin such as "readonly" or "package.module.Class"'),
    ("[[plugin]]\nname = 'x'\nlevel = 3", "plugin[0].use: missing; expected"),
    ("[[plugin]]\nuse = ['x']", "plugin[0].use: expected a string; got a list"),
    ("[[plugin]]\nuse = 'read only'", "plugin[0].use: expected a name of letters, digits, dots, colons, dashes and"),
    (f"[[plugin]]\nuse = '{'x' * 129}'", "plugin[0].use: expected a name of letters, digits, dots, colons, dashes and"),
    ("[[plugin]]\nuse = 'x'\nname = ''", "plugin[0].name: expected a string that is not empty"),
    ("[[plugin]]\nuse = 'x'\nname = 'é'", "plugin[0].name: expected a name of letters, digits"),
    (
        "[[plugin]]\nuse = 'x'\n[[plugin]]\nuse = 'x'",
        'plugin[1].name: "x" is another plugin\'s; expected each to have its own',
    ),
    (
        "[[plugin]]\nuse = 'x'\n[[plugin]]\nuse = 'y'\nname = 'x'",
        'plugin[1].name: "x" is another plugin\'s; expected each to have its own',
    ),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_refused(text: str, expected: str, tmp_path: Path) -> None:
    """Each fault is found, is the only one found, and is worded with its path and what was expected."""
    problems = problems_in(PLAIN + text, tmp_path)
    assert len(problems) == 1, problems
    assert problems[0].startswith(expected)


class Demanding(Plugin):
    """A plugin that cannot be without an option."""

    interests = Interests(verbs=None)

    def __init__(self, options: Options) -> None:
        self.file = options.path("file")


def load(text: str, file: Path) -> list[str]:
    """Load the plugins that `text` has in the file; gives their names."""
    plugins = parse(tomllib.loads(PLAIN + text), "x", file.parent).plugins
    return [loaded.name for loaded in load_plugins(plugins, file)]


def test_loaded(tmp_path: Path) -> None:
    """They are loaded in order, under their names, with their options."""
    text = """
    [[plugin]]
    use = "readonly"
    level = "none"
    [[plugin]]
    use = "imapgate.plugins.bundled.readonly.ReadOnly"
    name = "assistants"
    level = "organise"
    users = ["assistant@*"]
    """
    assert load(text, tmp_path / "x.toml") == ["readonly", "assistants"]
    assert load("", tmp_path / "x.toml") == []


def test_a_path_among_the_options(tmp_path: Path) -> None:
    """A plugin's paths are relative to the file of the configuration, as all others are."""
    entry = PluginEntry(f"{__name__}.Demanding", "x", {"file": "words"}, tmp_path)
    (loaded,) = load_plugins([entry], None)
    assert loaded.plugin.file == tmp_path / "words"


def test_not_loaded(tmp_path: Path) -> None:
    """What a plugin has against its options is said with the file and the key's path, of all plugins at once."""
    text = "[[plugin]]\nuse = 'readonly'\nlevel = 'nine'\n[[plugin]]\nuse = 'redonly'"
    with pytest.raises(ConfigurationError) as caught:
        load(text, tmp_path / "x.toml")
    first, second = caught.value.problems
    assert first.startswith(
        f'{tmp_path}/x.toml: plugin[0].level: expected one of "none", "organise", "full"; got "nine"'
    )
    assert second.startswith(f'{tmp_path}/x.toml: plugin[1].use: no plugin is called "redonly"; expected one of ')


def test_not_loaded_from_the_command_line() -> None:
    """Of the command line, a fault is said of the option."""
    configuration = from_options("unix:a", "unix:b", plugins=[f"{__name__}.Demanding", "redonly"])
    with pytest.raises(ConfigurationError) as caught:
        load_plugins(configuration.plugins, configuration.path)
    first, second = caught.value.problems
    assert first == "command line: plugin[0].file: missing; expected a string"
    assert second.startswith('command line: --plugin: no plugin is called "redonly"; expected one of ')
