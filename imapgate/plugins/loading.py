"""From the configuration's tables to plugins, verified: found, made with their options, and seen to be whole.

Knows where plugins are found (bundled, installed, by their dotted path) and the options that all of them have.  It
knows no hook.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from zope.interface.exceptions import BrokenImplementation, BrokenMethodImplementation, Invalid
from zope.interface.verify import verifyObject

from imapgate.errors import ConfigurationError
from imapgate.model.commands import COMMANDS, When
from imapgate.plugins.api import Event, Interests, IPlugin, OptionError, Options
from imapgate.plugins.options import nearest
from imapgate.plugins.raised import described

GROUP = "imapgate.plugins"
"""The group of entry points."""
BUNDLED = "imapgate.plugins.bundled"
"""The package of the bundled ones; each of its modules is one, unless its name begins with ``_``."""

_POLICIES = ("closed", "open")
_DOTTED = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)[.:]([^\W\d]\w*)")
_VERB = re.compile(r"(?:UID )?[A-Z0-9][A-Z0-9.-]*")
_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9.-]*")
_FAULTS_SHOWN = 3
_NEVER_ASKED = frozenset(["LOGOUT"]) | {
    verb.decode() for verb, rule in COMMANDS.items() if rule.when is When.NOT_AUTHENTICATED
}


class Entry(NamedTuple):
    """One ``[[plugin]]`` of the configuration.

    :ivar use: a bundled name, the name of an entry point, a dotted path, or the class itself
    :ivar options: all that stands in the table but ``use``
    :ivar base: what relative paths in it are relative to
    :ivar name: what the plugin is called in logs and in the audit trail; empty: as it is found
    """

    use: str | type
    options: Mapping[str, object] = {}
    base: Path = Path()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A plugin that is ready, and what the configuration says of it.

    :ivar interests: what it declared once it was made; what it changes later counts for nothing
    :ivar users: patterns of the users whom it concerns; ``None``: everyone
    :ivar timeout: seconds it may take for an answer
    :ivar on_error: ``closed`` or ``open``: whether what it was asked about is refused, or passes, where it fails
    :ivar on_timeout: the same, where it takes too long
    :ivar failures: in a row, after which it is not asked
    :ivar pause: for so many seconds
    """

    name: str
    plugin: Any
    interests: Interests
    users: tuple[str, ...] | None = None
    timeout: float = 5.0
    on_error: str = "closed"
    on_timeout: str = "closed"
    failures: int = 5
    pause: float = 30.0
    threaded: bool = False


def load(entries: Sequence[Entry]) -> list[Loaded]:
    """Find and make the plugins, in their order.

    :raise ConfigurationError: with a sentence for each fault, and where it is, such as ``plugin[0].level``.
    """
    faults: list[str] = []
    found = [_load(f"plugin[{index}]", entry, faults) for index, entry in enumerate(entries)]
    if faults:
        raise ConfigurationError(faults)
    return [one for one in found if one is not None]


class _Unusable(ValueError):
    """No plugin; the message is a sentence without where it is."""


def _load(where: str, entry: Entry, faults: list[str]) -> Loaded | None:
    options = Options(entry.options, entry.base, where)
    use = entry.use if isinstance(entry.use, str) else entry.use.__name__
    common = _common(options, faults)
    try:
        make = _find(entry.use)
    except _Unusable as unusable:
        faults.append(f"{where}.use: {unusable}")
        return None
    try:
        plugin = make(options)
        options.finish()
        interests = _verified(plugin)
    except OptionError as error:
        faults.append(f"{error.key}: {error}")
    except _Unusable as unusable:
        faults.append(f"{where}.use: {json.dumps(use)} {unusable}")
    except Exception as error:
        why = described(error, getattr(make, "__module__", ""))
        faults.append(f"{where}.use: {json.dumps(use)} could not be made: {why}")
    else:
        for policy in ("on_error", "on_timeout"):
            common[policy] = common.get(policy) or getattr(plugin, policy)
        return Loaded(entry.name or use, plugin, interests, threaded=bool(plugin.threaded), **common)
    return None


def _common(options: Options, faults: list[str]) -> dict[str, Any]:
    """Take the options that every plugin has."""
    readers: Mapping[str, Callable[[], object]] = {
        "users": lambda: _users(options),
        "timeout": lambda: options.duration("timeout", 5.0),
        "on_error": lambda: options.choice("on_error", _POLICIES, ""),
        "on_timeout": lambda: options.choice("on_timeout", _POLICIES, ""),
        "failures": lambda: options.number("failures", 5, least=1),
        "pause": lambda: options.duration("pause", 30.0),
    }
    found = {}
    for key, read in readers.items():
        try:
            found[key] = read()
        except OptionError as error:
            faults.append(f"{error.key}: {error}")
    return found


def _users(options: Options) -> tuple[str, ...] | None:
    users = options.texts("users")
    if users:
        return users
    if "users" not in options:
        return None
    raise options.fault("users", "an empty list concerns nobody; name users, or remove the key: then it is everyone")


def _find(use: str | type) -> Callable[[Options], Any]:
    """Return what makes the plugin of that name."""
    if not isinstance(use, str):
        return use
    bundled = [module.name for module in pkgutil.iter_modules(importlib.import_module(BUNDLED).__path__)]
    if use in bundled and not use.startswith("_"):
        return _attribute(f"{BUNDLED}.{use}", "PLUGIN")
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if use in installed:
        return _attribute(installed[use].module, installed[use].attr)
    path = _DOTTED.fullmatch(use)
    if path is not None:
        return _attribute(path[1], path[2])
    known = sorted({*(name for name in bundled if not name.startswith("_")), *installed})
    raise _Unusable(
        f"no plugin is called {json.dumps(use)}; expected one of {', '.join(known)}, or the dotted path of a class, "
        f'such as "mypackage.mymodule.MyPlugin"{nearest(use, known)}'
    )


def _attribute(module: str, name: str) -> Callable[[Options], Any]:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if f"{module}.".startswith(f"{missing}."):
            raise _Unusable(
                f"there is no module {json.dumps(missing)}; install it for the Python that runs imapgate, or add its "
                "folder to PYTHONPATH"
            ) from None
        raise _Unusable(f"{module} needs the module {json.dumps(missing)}, which is not installed") from None
    except (Exception, SystemExit) as error:
        raise _Unusable(f"importing {module} failed: {described(error, module)}") from None
    made = getattr(found, name, None)
    if made is None:
        raise _Unusable(f"{module} has no {name}{nearest(name, dir(found))}")
    if not callable(made):
        raise _Unusable(f"{module}.{name} is no class, but of type {type(made).__name__}")
    return made  # type: ignore[no-any-return]


def _verified(plugin: Any) -> Interests:
    """Return a plugin's interests, if it is whole."""
    try:
        verifyObject(IPlugin, plugin)
    except Invalid as error:
        raise _Unusable(_lacking(getattr(error, "exceptions", [error]))) from None
    for policy in ("on_error", "on_timeout"):
        if getattr(plugin, policy) not in _POLICIES:
            raise _Unusable(f'is no plugin: its {policy} is neither "closed" nor "open"')
    return _interests(plugin.interests)


def _lacking(errors: Sequence[Exception]) -> str:
    found = []
    for error in errors:
        # zope's errors are: (interface, what, …) and (what, why, …)
        if isinstance(error, BrokenMethodImplementation):
            method, why = error.args[:2]
            found.append(f"of {method.getName()}{method.getSignatureString()} the {why}")
        elif isinstance(error, BrokenImplementation):
            found.append(f"it has no {error.args[1].getName()}")
    faults = ", ".join(found[:_FAULTS_SHOWN] + ["…"] * (len(found) > _FAULTS_SHOWN))
    return f"is no plugin{': ' * bool(faults)}{faults}; derive its class from imapgate.plugins.api.Plugin"


def _interests(declared: object) -> Interests:
    """Return what a plugin declares, if every name in it can come up."""
    if not isinstance(declared, Interests):
        raise _Unusable(f"is no plugin: its interests are no Interests, but of type {type(declared).__name__}")
    verbs = None if declared.verbs is None else _words("verbs", declared.verbs, _VERB, "a verb such as UID FETCH")
    never = sorted(_NEVER_ASKED.intersection(verbs or ()))
    if never:
        raise _Unusable(f"is no plugin: nobody is asked about {never[0]}; for a login it is Event.CREDENTIALS")
    events: object = declared.events
    if not isinstance(events, Set) or not all(isinstance(event, Event) for event in events):
        raise _Unusable("is no plugin: expected as its interests.events a frozenset of members of Event")
    if not isinstance(declared.message, int) or declared.message < 0:
        raise _Unusable("is no plugin: expected as its interests.message a number of octets")
    interests = Interests(
        verbs,
        _words("completions", declared.completions, _VERB, "a verb such as UID FETCH"),
        _words("responses", declared.responses, _KEYWORD, "a first word such as EXISTS"),
        bool(declared.fetch),
        declared.message,
        frozenset(events),
        bool(declared.capabilities),
    )
    if interests == Interests():
        raise _Unusable("would never be asked: it declares no interests")
    return interests


def _words(what: str, words: object, pattern: re.Pattern[str], expected: str) -> frozenset[str]:
    if not isinstance(words, Set):
        raise _Unusable(f"is no plugin: expected as its interests.{what} a frozenset; got {type(words).__name__}")
    for word in words:
        if not isinstance(word, str) or not pattern.fullmatch(word):
            raise _Unusable(f"is no plugin: expected in its interests.{what} {expected}, upper case; got {word!r}")
    return frozenset(words)
