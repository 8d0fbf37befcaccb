"""What the pages tell their reader to write can be written: configurations and command lines."""

from __future__ import annotations

import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from imapgate.cli import _parser
from imapgate.config import parse
from imapgate.errors import ConfigurationError
from imapgate.plugins.loading import Entry, load
from imapgate.tap import Options
from tests.config.configurations import CONF

CLONE = CONF.parent

PAGES = [CLONE / "README.rst", *sorted(path for path in (CLONE / "docs").rglob("*.rst") if "_build" not in path.parts)]
BLOCK = re.compile(
    r"^( *)(?:\.\. code-block:: (\w+)(?:\n +:class: \w+)?|[^.\n].*::)\n\n((?:\1 +.*\n|\n)+)",
    re.MULTILINE,
)
PARTIAL = re.compile(
    r"x: no \[|endpoints: missing|cannot be (?:read|used): No such file|given with (?:auth\.)?mode = \"pass\""
)
"""What is wrong with an example only because it is a part, or because the files that it names are not there."""


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Give the examples of a page that are in one of these languages; "" is none."""
    for _, language, block in BLOCK.findall(page.read_text()):
        if language in languages:
            yield textwrap.dedent(block)


def commands() -> list[tuple[str, str]]:
    """Give every line that runs ``imapgate`` or ``twistd … imapgate``, with its page."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh", "text", ""):
            for line in block.replace("\\\n", " ").splitlines():
                if match := re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )?(?:\S+/)?((?:imapgate|twistd) [-a-z].*)", line):
                    command = match[1].partition(" | ")[0].partition(" >")[0]
                    found.append((page.name, command))
    return found


def faults_of(example: str) -> list[str]:
    """Give what is wrong with a configuration."""
    try:
        parse(tomllib.loads(example), "x", CONF, path=CONF / "x.toml")
    except ConfigurationError as error:
        return error.problems
    return []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every TOML example holds only keys that exist, with values that they can have."""
    for variable in ("SCRIPT_KEY", "GATE_PASSWORD"):
        monkeypatch.setenv(variable, "canary")
    faults = [fault for example in blocks(page, "toml") for fault in faults_of(example)]
    assert [fault for fault in faults if not PARTIAL.search(fault)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_plugins(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plugin in a TOML example can be loaded with its options; that of the tutorial, too."""
    monkeypatch.syspath_prepend(CLONE / "docs" / "_examples" / "keepfolders")
    for example in blocks(page, "toml"):
        tables = tomllib.loads(example).get("plugin", [])
        entries = [Entry(table.pop("use"), table, CONF, table.pop("name", "")) for table in tables]
        assert len(load(entries)) == len(tables)


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands(page: str, command: str) -> None:
    """Every command line is one that ``imapgate`` or ``twistd`` understands."""
    program, *words = shlex.split(command.replace("…", "x"), comments=True)
    if program == "imapgate":
        _parser().parse_args(words)
    elif "imapgate" in words:
        Options().parseOptions(words[words.index("imapgate") + 1 :])


def test_that_something_was_looked_at() -> None:
    """The examples are found at all."""
    assert len(commands()) >= 40
    assert sum(len(list(blocks(page, "toml"))) for page in PAGES) >= 30
