"""Directives that take what they show from the code, so that the pages cannot drift from it.

What a directive looks for and does not find stops the build.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from layouts import CHARTS
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from statecharts import draw

import imapgate
from imapgate.admin import ctl, operator
from imapgate.model import capability
from imapgate.model.commands import COMMANDS, KINDS, Changes, Rule, When
from imapgate.model.failure import ANSWERS, LOST_SESSION, Failure
from imapgate.net import journal
from imapgate.session import states

PACKAGE = Path(imapgate.__file__).parent
TESTS = PACKAGE.parent / "tests"
THREATS = Path(__file__).parent.parent / "threats.toml"
CTL = Path(__file__).parent.parent / "ctl.toml"
Cell = str | Sequence[nodes.Node]


class _Directive(SphinxDirective):
    """What the directives share: tables and reStructuredText."""

    def inline(self, text: str) -> list[nodes.Node]:
        """Return reStructuredText as nodes, a single paragraph as what is in it."""
        found = self.parse_text_to_nodes(text)
        return list(found[0].children) if len(found) == 1 and isinstance(found[0], nodes.paragraph) else found

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Cell]], widths: Sequence[int]) -> nodes.table:
        group = nodes.tgroup(cols=len(head))
        group += [nodes.colspec(colwidth=width) for width in widths]
        header, body = nodes.thead(), nodes.tbody()
        header += self._row(head)
        body += [self._row(row) for row in rows]
        group += [header, body]
        table = nodes.table("", group, classes=["colwidths-given"])
        return table

    def _row(self, cells: Sequence[Cell]) -> nodes.row:
        row = nodes.row()
        for cell in cells:
            content = self.inline(cell) if isinstance(cell, str) else list(cell)
            row += nodes.entry("", nodes.paragraph("", "", *content))
        return row


def literal(text: bytes | str) -> nodes.literal:
    """Return text exactly as it is."""
    text = text if isinstance(text, str) else text.decode("ascii")
    return nodes.literal(text, text)


def sentences(module: str, owner: str) -> dict[str, str]:
    """Return the docstrings below the attributes of a class, by attribute."""
    found = ModuleAnalyzer.for_module(module).find_attr_docs()
    whole = {name: " ".join(lines).strip() for (where, name), lines in found.items() if where == owner}
    return {name: re.sub(r"THREATS (?=[AF]\d)", "", text) for name, text in whole.items()}


# --- states -----------------------------------------------------------------------------------------------------------


class StateChart(_Directive):
    """``.. state-chart:: CONNECTION``: one machine of ``imapgate.session.states``, as a diagram and as a table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        table = getattr(states, name)
        layout, title = CHARTS[name]
        try:
            svg = draw(table, layout, title)
        except ValueError as error:
            raise ExtensionError(f"docs/_ext/layouts.py: {error}") from None
        raw = [
            nodes.raw("", f'<figure class="state-chart">{svg}</figure>', format="html"),
            nodes.raw("", '<details class="as-table"><summary>The same as a table</summary>', format="html"),
        ]
        rows = [(state.value, event.value, target.value) for (state, event), target in table.items()]
        plain = [[[nodes.Text(cell)] for cell in row] for row in rows]
        return [*raw, self.table(("in", "on", "to"), plain, (30, 40, 30)), nodes.raw("", "</details>", format="html")]


# --- failures ---------------------------------------------------------------------------------------------------------


class ClientAnswers(_Directive):
    """What the client is answered where a login fails, for each failure."""

    def run(self) -> list[nodes.Node]:
        means = sentences("imapgate.model.failure", "Failure")
        rows: list[Sequence[Cell]] = []
        for failure in Failure:
            completion, code, text = ANSWERS[failure]
            line = b" ".join(word for word in (completion, b"[%b]" % code if code else b"", text) if word)
            if failure.name not in means:
                raise ExtensionError(f"imapgate/model/failure.py: {failure} has no docstring")
            rows.append(([literal(failure.value)], means[failure.name], [literal(line)]))
        return [self.table(("reason", "what happened", "the client's answer, behind its tag"), rows, (16, 42, 42))]


class LostSessions(_Directive):
    """The last line of a client that has logged in and whose upstream fails."""

    def run(self) -> list[nodes.Node]:
        rows = [([literal(failure.value)], [literal(line.rstrip())]) for failure, line in LOST_SESSION.items()]
        return [self.table(("reason", "the client's last line"), rows, (20, 80))]


class EveryFailure(_Directive):
    """Its content as it is, once it is seen that the content has a word on every failure."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        missing = [failure.value for failure in Failure if f"``{failure.value}``" not in text]
        if missing:
            raise ExtensionError(f"{self.env.docname}: nothing is said of the failures {', '.join(missing)}")
        return self.parse_content_to_nodes()


class EveryBye(_Directive):
    """Its content, once it is seen that its lines are the gate's, and that none of a session's is missing."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        told = set(re.findall(r"``\* BYE (.*?)``", "\n".join(self.content)))
        sources = [PACKAGE / "operating.py", *(PACKAGE / "session").glob("*.py")]
        source = "\n".join(path.read_text() for path in sources)
        said = set(re.findall(r'_BYE % b"(.*?)"', source))
        if wrong := sorted(said - told | {text for text in told if text not in source}):
            raise ExtensionError(f"{self.env.docname}: not as the source has it: {', '.join(wrong)}")
        return self.parse_content_to_nodes()


# --- commands and capabilities ----------------------------------------------------------------------------------------


def _remarks(rule: Rule) -> Iterator[str]:
    if rule.message_after is not None:
        yield "carries messages, which are streamed"
    if rule.slow:
        yield "slow"
    if rule.changes is not Changes.NOTHING:
        yield rule.changes.value
    if rule.secret:
        yield "secret arguments"


class CommandTable(_Directive):
    """``.. command-table:: selected``: the commands of one state."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        when = When(self.arguments[0])
        rows: list[Sequence[Cell]] = []
        for rule in COMMANDS.values():
            if rule.when is when:
                words = [KINDS[kind].removeprefix("a ").removeprefix("an ") for kind in rule.shape]
                shape = ", ".join([*words, *(["…"] if rule.more else [])])
                rows.append(
                    ([literal(rule.verb)], [nodes.Text(shape or "none")], [nodes.Text(", ".join(_remarks(rule)))])
                )
        return [self.table(("command", "arguments", ""), rows, (24, 46, 30))]


class CapabilityList(_Directive):
    """``.. capability-list:: own``: one of the lists of ``imapgate.model.capability``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lists = {
            "own": capability.OWN,
            "enable": sorted(capability.ENABLEABLE),
            "known": sorted(capability._KNOWN),
            "families": capability._FAMILIES,
        }
        paragraph = nodes.paragraph()
        for number, name in enumerate(lists[self.arguments[0]]):
            paragraph += ([nodes.Text(", ")] if number else []) + [literal(name)]
        return [paragraph]


# --- the log ----------------------------------------------------------------------------------------------------------


class LogCall(NamedTuple):
    """One call of the logger in the source."""

    level: str
    text: str
    module: str


_READY_MADE = {"{line}": journal.ENDED, "{text}": "{file}: {fault}; the table stays as it was"}
"""What lines say that are put together before they reach the logger: by the journal, and by a table of users."""


def log_calls() -> Iterator[LogCall]:
    """Every text that the gate logs, as its source has it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                text = str(node.args[0].value)
                yield LogCall(node.func.attr, _READY_MADE.get(text, text), module)


class LogLine(_Directive):
    """``.. log-line:: login failed``: the form of the one line that begins so."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        begin = self.arguments[0]
        found = [call for call in log_calls() if call.text.startswith(begin)]
        if len(found) != 1:
            raise ExtensionError(f"{len(found)} log lines begin with {begin!r}")
        return [nodes.literal_block(found[0].text, found[0].text, language="none", classes=["wrap"])]


_LEVELS = {"critical": 0, "failure": 0, "error": 1, "warn": 2, "info": 3, "debug": 4}


def session_reasons() -> Iterator[str]:
    """Every reason for which a session ends, as the core and the shell name them."""
    for path in (PACKAGE / "session" / "session.py", PACKAGE / "net" / "client.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named: ast.expr | None = None
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("self._end", "self.session.client_lost"):
                named = node.args[0] if node.args else None
            elif isinstance(node, ast.FunctionDef) and node.name == "client_lost":
                named = node.args.defaults[0]
            for choice in (named.body, named.orelse) if isinstance(named, ast.IfExp) else (named,):
                if isinstance(choice, ast.Constant):
                    yield str(choice.value)
    yield from (f"upstream {failure.value}" for failure in LOST_SESSION)


class SessionReasons(_Directive):
    """The reasons for which a session ends."""

    def run(self) -> list[nodes.Node]:
        paragraph = nodes.paragraph("", "A JSON string, one of ")
        for number, reason in enumerate(sorted(set(session_reasons()))):
            paragraph += ([nodes.Text(", ")] if number else []) + [literal(f'"{reason}"')]
        paragraph += nodes.Text(".")
        return [paragraph]


class LogLines(_Directive):
    """Every other line of the log."""

    def run(self) -> list[nodes.Node]:
        lines = {(_LEVELS[call.level], call.level.replace("failure", "critical"), call.text) for call in log_calls()}
        rows = [([nodes.Text(level)], [literal(text)]) for _, level, text in sorted(lines)]
        return [self.table(("level", "text"), rows, (14, 86))]


# --- the command line -------------------------------------------------------------------------------------------------


class CommandHelp(_Directive):
    """``.. command-help:: imapgate probe``: what its ``--help`` prints."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        words = self.arguments[0].split()
        before = os.environ.get("COLUMNS")
        os.environ["COLUMNS"] = "80"
        try:
            text = self._twistd() if words[0] == "twistd" else self._imapgate(words[1:])
        finally:
            del os.environ["COLUMNS"]
            if before is not None:
                os.environ["COLUMNS"] = before
        return [nodes.literal_block(text, text, language="none")]

    def _imapgate(self, commands: Sequence[str]) -> str:
        from imapgate.cli import _parser

        parser: Any = _parser()
        for command in commands:
            (choices,) = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
            parser = choices[command]
        return str(parser.format_help()).strip()

    def _twistd(self) -> str:
        from imapgate.tap import Options

        lines = str(Options()).strip().splitlines()
        usage = ["Usage: twistd [options] imapgate", "         " + Options.synopsis]
        return "\n".join([*usage, *lines[1:]])


# --- imapgate ctl -----------------------------------------------------------------------------------------------------


class CtlCommands(_Directive):
    """``.. ctl-commands:: reading`` or ``changing``: a section for each command, with what ``ctl.toml`` knows of it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        with CTL.open("rb") as file:
            known = tomllib.load(file)
        if known.keys() != operator.COMMANDS.keys():
            raise ExtensionError(f"docs/ctl.toml: has {', '.join(known)}; there are {', '.join(operator.COMMANDS)}")
        changes = {"reading": False, "changing": True}[self.arguments[0]]
        return [
            self._section(command, **known[name])
            for name, command in operator.COMMANDS.items()
            if command.changes is changes
        ]

    def _section(
        self, command: operator.Command, rows: list[operator.Row], columns: dict[str, str], words: str | None = None
    ) -> nodes.section:
        name = command.name
        shown = {column for row in rows for column in row}
        if shown != columns.keys():
            raise ExtensionError(f"docs/ctl.toml: {name}: the rows have {shown}, the columns are {list(columns)}")
        rows = [{column: row.get(column) for column in columns} for row in rows]
        section = nodes.section("", nodes.title("", name), ids=[f"ctl-{name}"], names=[f"ctl {name}"])
        section += self.parse_text_to_nodes(f"{command.help[0].upper()}{command.help[1:]}.")
        if command.arguments:
            arguments = [([literal(self._form(argument))], argument.help) for argument in command.arguments]
            section += self.table(("argument", ""), arguments, (25, 75))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            ctl.show(command, iter(rows), as_json=False)
        text = f"$ imapgate ctl {words or name}\n{out.getvalue()}".rstrip()
        section += nodes.literal_block(text, text, language="none")
        section += self.table(
            ("column", "what it is"), [([literal(column)], means) for column, means in columns.items()], (25, 75)
        )
        return section

    def _form(self, argument: operator.Argument) -> str:
        return {
            operator.Kind.WORD: argument.name.upper(),
            operator.Kind.OPTIONAL: f"[{argument.name.upper()}]",
            operator.Kind.SECONDS: f"--{argument.name} N",
            operator.Kind.FLAG: f"--{argument.name}",
        }[argument.kind]


# --- threats, differences ---------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"\b([AF]\d{1,2})\b")
_IN_NAME = re.compile(r"_([af]\d{1,2})(?=_)")


def tests_by_number() -> dict[str, set[str]]:
    """Return the test modules that name a threat in their docstring, or in a test's, or in its name; by its number."""
    found: dict[str, set[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        module = ast.parse(path.read_text())
        numbers = set(_NUMBER.findall(ast.get_docstring(module) or ""))
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                numbers |= set(_NUMBER.findall(ast.get_docstring(node) or ""))
                numbers |= {number.upper() for number in _IN_NAME.findall(node.name)}
        for number in numbers:
            found.setdefault(number, set()).add(path.relative_to(TESTS).as_posix())
    return found


class Threats(_Directive):
    """``.. threats:: A``: the attacks (A) or faults (F) of ``threats.toml``, with the tests that name them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        tests = tests_by_number()
        rows: list[Sequence[Cell]] = []
        with THREATS.open("rb") as file:
            threats = tomllib.load(file)
        for number, threat in threats.items():
            if not number.startswith(self.arguments[0]):
                continue
            answer = threat["answer"].replace("`", "``")
            if "later" in threat:
                answer = f"*Comes with {threat['later']}.*"
            where: list[nodes.Node] = []
            for name in sorted(tests.get(number, ())):
                where += [nodes.Text(" "), literal(name)] if where else [literal(name)]
            anchor = nodes.target("", number, ids=[number.lower()])
            rows.append(([anchor], threat["attack"], answer, where))
        return [self.table(("", "attack or fault", "the gate", "in tests/"), rows, (7, 25, 40, 28))]


class ParityDifferences(_Directive):
    """The listed differences between a server and the same server behind the gate, with their reasons."""

    def run(self) -> list[nodes.Node]:
        with (TESTS / "integration" / "parity" / "differences.toml").open("rb") as file:
            entries = tomllib.load(file).get("difference", [])
        if not entries:
            return self.parse_text_to_nodes("The list is empty.")
        rows: list[Sequence[Cell]] = [
            (
                [nodes.Text(entry["reason"])],
                [nodes.Text(entry.get("server", "*").replace("*", "all"))],
                [nodes.Text(", ".join(entry.get("case", "*").replace("*", "all").split()))],
            )
            for entry in entries
        ]
        return [self.table(("difference", "server", "dialogues"), rows, (46, 14, 40))]


# --- modules ----------------------------------------------------------------------------------------------------------

_FLOORS = (
    ("", ("__main__", "cli", "tap", "service", "demo", "probing", "testing", "operating", "recording", "assembly")),
    ("config", ()),
    ("admin", ()),
    ("net", ()),
    ("auth", ()),
    ("routing", ()),
    ("plugins", ()),
    ("audit", ()),
    ("", ("log", "threads", "web", "wording")),
    ("sharing", ()),
    ("session", ()),
    ("pooling", ()),
    ("model", ()),
    ("wire", ()),
    ("", ("errors", "limits")),
)


class ModuleMap(_Directive):
    """Every module with the first sentence of its docstring, the top floor first."""

    def run(self) -> list[nodes.Node]:
        paths = sorted(PACKAGE.rglob("*.py"))
        rows: list[Sequence[Cell]] = []
        for folder, names in _FLOORS:
            for path in paths:
                parts = path.relative_to(PACKAGE).with_suffix("").parts
                here = parts[0] == folder if folder else parts[0] in names
                if not here or parts[-1] == "__init__" or (folder and len(parts) < 2):
                    continue
                paths = [other for other in paths if other != path]
                rows.append(([literal("/".join(parts) + ".py")], self._sentence(path)))
        missing = [path for path in paths if path.name != "__init__.py"]
        if missing:
            raise ExtensionError(f"docs/_ext/from_code.py: on no floor: {missing}")
        return [self.table(("module", "what it is"), rows, (30, 70))]

    def _sentence(self, path: Path) -> str:
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        return " ".join(doc.split("\n\n")[0].split())


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx."""
    app.add_directive("state-chart", StateChart)
    app.add_directive("client-answers", ClientAnswers)
    app.add_directive("lost-sessions", LostSessions)
    app.add_directive("every-failure", EveryFailure)
    app.add_directive("every-bye", EveryBye)
    app.add_directive("threats", Threats)
    app.add_directive("parity-differences", ParityDifferences)
    app.add_directive("command-table", CommandTable)
    app.add_directive("capability-list", CapabilityList)
    app.add_directive("log-line", LogLine)
    app.add_directive("log-lines", LogLines)
    app.add_directive("session-reasons", SessionReasons)
    app.add_directive("command-help", CommandHelp)
    app.add_directive("ctl-commands", CtlCommands)
    app.add_directive("module-map", ModuleMap)
    app.connect("builder-inited", _depend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _depend(app: Sphinx) -> None:
    """Read every page again at each build: the code may have changed though the page has not."""
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: list(env.found_docs - added))
