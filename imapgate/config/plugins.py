"""``[[plugin]]``: which plugins are asked, in order: read and checked, and loaded.

Knows how a plugin is named; its options are its own to know, and are checked when it is loaded, which runs its code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from imapgate.config.table import Table, of_text
from imapgate.config.types import PluginEntry
from imapgate.config.values import Unfit
from imapgate.errors import ConfigurationError
from imapgate.plugins import loading

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")
"""What can stand in the log; dotted paths are long."""
_USE = re.compile(r"\Aplugin\[\d+\]\.use: ")


def read_plugins(document: Table, base: Path) -> tuple[PluginEntry, ...]:
    """Read the plugins, without the faulty ones."""
    plugins: list[PluginEntry] = []
    names: set[str] = set()
    for table in document.tables("plugin"):
        use = table.required("use", of_text(_name), 'a plugin such as "readonly" or "package.module.Class"')
        name = table.take("name", of_text(_name), use)
        options = table.rest()
        if use is None or name is None:
            continue
        if name in names:
            table.add("name", f'"{name}" is another plugin\'s; expected each to have its own')
        names.add(name)
        plugins.append(PluginEntry(use, name, options, base))
    return tuple(plugins)


def load_plugins(plugins: Sequence[PluginEntry], file: Path | None) -> list[loading.Loaded]:
    """Find and make the plugins, or raise every fault as one error, said of the `file`; None: of the command line."""
    try:
        return loading.load([loading.Entry(one.use, one.options, one.base, one.name) for one in plugins])
    except ConfigurationError as error:
        if file is not None:
            problems = [f"{file}: {problem}" for problem in error.problems]
        else:
            problems = [f"command line: {_USE.sub('--plugin: ', problem)}" for problem in error.problems]
        raise ConfigurationError(problems) from None


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise Unfit("a name of letters, digits, dots, colons, dashes and underscores, at most 128")
    return value
