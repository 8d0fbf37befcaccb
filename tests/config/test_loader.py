"""The configuration: every key arrives, every fault is told at once, and nothing but `ConfigurationError` comes out."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imapgate.config import from_options, load, parse
from imapgate.config.types import (
    Admin,
    Audit,
    AuditSink,
    ClientEndpoint,
    Durability,
    PluginEntry,
    Routing,
    RoutingRule,
    ServerEndpoint,
    SinkKind,
    Tls,
    Trace,
)
from imapgate.config.weaknesses import weakened
from imapgate.errors import ConfigurationError
from imapgate.limits import DEFAULTS, Limits
from imapgate.model.pool_mode import PoolMode
from tests.config.configurations import CONF, EVERYTHING, NOW, PLAIN, make_folder, problems_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates and files that are none."""
    return make_folder(tmp_path_factory.mktemp("configuration"))


def test_everything(folder: Path) -> None:
    """Every key that is built can be written, and arrives with its type and relative to the file."""
    (folder / "all.toml").write_text(EVERYTHING)
    configuration = load(folder / "all.toml")
    assert configuration.path == folder / "all.toml"
    assert configuration.allow_root is True
    assert configuration.beyond_loopback is True
    assert configuration.extra_verbs == ("XLIST", "XMOVE")
    first, second, unix, plain, inherited = configuration.listeners
    assert first.endpoint == ServerEndpoint("tcp", "tcp:993", port=993)
    assert first.tls is Tls.IMPLICIT
    assert [pair.private_key for pair in first.certificates] == [folder / "a.key", folder / "b.key"]
    assert first.proxy_protocol
    assert (first.name, unix.name) == ("public", f"unix:{folder}/gate.sock:mode=660")
    assert first.trusted_proxies == tuple(map(ipaddress.ip_network, ["192.0.2.0/24", "2001:db8::/32", "127.0.0.1/32"]))
    assert (second.endpoint.host, second.endpoint.port, second.tls) == ("::", 143, Tls.STARTTLS)
    assert unix.endpoint.path == str(folder / "gate.sock")
    assert unix.endpoint.text == f"unix:{folder}/gate.sock:mode=660"
    assert plain.allow_plaintext
    assert inherited.endpoint.unix
    legacy, other = configuration.upstreams.values()
    assert legacy.endpoints == (
        ClientEndpoint("tcp", "tcp:mail1.example.org:143", "mail1.example.org", 143),
        ClientEndpoint(
            "tcp",
            "tcp:mail2.example.org:143:bindAddress=192.0.2.7",
            "mail2.example.org",
            143,
            bind_address="192.0.2.7",
        ),
    )
    assert (legacy.tls, legacy.ca, legacy.id_originating) == (Tls.STARTTLS, folder / "a.pem", True)
    assert legacy.verified_name(legacy.endpoints[0]) == "mail.example.org"
    assert (other.tls, other.insecure) == (Tls.IMPLICIT, True)
    assert attrs.evolve(other, insecure=False).verified_name(other.endpoints[0]) == "mail.example.org"
    assert (legacy.pool_size, legacy.pool_keep, legacy.pool_wait, legacy.max_connections) == (5, 2, 2.0, 1000)
    rule = RoutingRule(listener=("public",), user=("a*",), upstream="other", pool_mode=PoolMode.MAILBOX)
    assert configuration.routing == Routing("legacy", (rule,))
    assert configuration.admin == Admin(folder / "control", folder / "control-read")
    assert configuration.limits == replace(
        DEFAULTS,
        login_time=120.0,
        half_close=2.5,
        sasl_line=12288,
        message_literal=128 * 1024 * 1024,
        tag=32,
        upstream_connections=2000,
        drain=10.0,
        pool_check=20.0,
        failed_login_delays=(0.5, 1.0),
    )
    assert configuration.trace == Trace("alice", folder / "alice.trace", 3600.0)
    address = ClientEndpoint("tls", "tls:siem.example.org:6514", "siem.example.org", 6514)
    sink = AuditSink(SinkKind.SYSLOG, address, 2, folder / "a.pem", "siem.internal")
    assert configuration.audit == Audit(folder / "audit.jsonl", Durability.DURABLE, folder / "audit.key", sinks=(sink,))
    options = {"level": "none", "users": ["auditor@*"]}
    assert configuration.plugins == (PluginEntry("readonly", "auditors", options, folder),)


def test_defaults(tmp_path: Path) -> None:
    """A listener and an upstream are enough; the rest has its default, and nothing of it is weakened."""
    configuration = parse(tomllib.loads(PLAIN), "x", tmp_path)
    assert configuration.limits == DEFAULTS
    assert configuration.trace is None
    assert (configuration.audit, configuration.plugins) == (None, ())
    assert configuration.admin == Admin()
    assert configuration.routing.default == "legacy"
    assert not configuration.beyond_loopback
    assert configuration.upstreams["legacy"].tls is Tls.NONE
    assert weakened(configuration) == []


def test_every_limit_is_a_key(tmp_path: Path) -> None:
    """Each field of `Limits` can be set, and its default is a value that the key accepts."""
    for field in fields(Limits):
        value = getattr(DEFAULTS, field.name)
        document = tomllib.loads(PLAIN) | {"limits": {field.name: list(value) if isinstance(value, tuple) else value}}
        assert parse(document, "x", tmp_path).limits == DEFAULTS, field.name


@pytest.mark.parametrize(
    ("endpoints", "tls"),
    [
        (["tcp:127.0.0.1:143"], Tls.NONE),
        (["tcp:localhost:143", "unix:s"], Tls.NONE),
        (["tcp:localhost:143", "tcp:a:143"], Tls.STARTTLS),
        (["tcp:192.0.2.1:143"], Tls.STARTTLS),
        (["tls:a:993"], Tls.IMPLICIT),
    ],
)
def test_tls_of_an_upstream_by_default(endpoints: list[str], tls: Tls, tmp_path: Path) -> None:
    """Where `tls` is not written, only what cannot leave this machine goes in clear."""
    document = tomllib.loads(PLAIN) | {"upstream": {"x": {"endpoints": endpoints}}}
    assert parse(document, "x", tmp_path).upstreams["x"].tls is tls


def test_all_problems_at_once(tmp_path: Path) -> None:
    """One run tells the operator every fault of the file, each with the file's name."""
    file = tmp_path / "imapgate.toml"
    file.write_text(
        "alow_root = 1\n[[listener]]\nendpoint = 3\ntls = 'ssl'\n[limits]\ntag = 0\n[audit]\n[routing]\nx = 1"
    )
    problems = problems_of(lambda: load(file))
    prefix = f"{file}: "
    assert all(problem.startswith(prefix) for problem in problems)
    assert sorted(problem.removeprefix(prefix).partition(":")[0] for problem in problems) == [
        "alow_root",
        "audit.file",
        "limits.tag",
        "listener[0].endpoint",
        "listener[0].tls",
        "no [upstream.NAME]; expected at least one, with its endpoints",
        "routing.x",
    ]
    with pytest.raises(ConfigurationError, match=re.escape("listener[0].tls")):
        load(file)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a = ", "not valid TOML: Invalid value (at end of document)"),
        (b"\xff", "not valid TOML: 'utf-8' codec"),
        (b"a = " + b"9" * 5000, "not valid TOML: "),
        (b"a = " + b"[" * 100_000, "not valid TOML: "),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_unreadable_file(content: bytes | None, expected: str, tmp_path: Path) -> None:
    """A file that is missing or no TOML is one problem, whatever is wrong with it."""
    file = tmp_path / "imapgate.toml"
    if content is not None:
        file.write_bytes(content)
    problems = problems_of(lambda: load(file))
    assert len(problems) == 1
    assert problems[0].startswith(f"{file}: {expected}")


def test_ports_that_the_system_chooses(tmp_path: Path) -> None:
    """Two listeners at port 0 are two places, not one."""
    document = tomllib.loads(PLAIN)
    document["listener"] = [{"endpoint": "tcp:0:interface=127.0.0.1"}] * 2
    assert len(parse(document, "x", tmp_path).listeners) == 2


def test_options() -> None:
    """The command line's upstream and listener become a configuration without a file."""
    configuration = from_options("tcp:127.0.0.1:10143", "tcp:1143:interface=127.0.0.1")
    assert configuration.path is None
    assert configuration.upstreams["main"].tls is Tls.NONE
    assert configuration.listeners[0].endpoint.port == 1143
    assert configuration.routing.default == "main"
    assert weakened(configuration) == []
    assert from_options("tls:a:993", "unix:s").upstreams["main"].tls is Tls.IMPLICIT
    assert from_options("tcp:a:143", "unix:s").upstreams["main"].tls is Tls.STARTTLS


def test_operating_options(tmp_path: Path) -> None:
    """The command line's pool mode and control socket arrive where the file's would."""
    control = tmp_path / "control"
    configuration = from_options("unix:a", "unix:b", pool_mode="shared", control=str(control))
    assert configuration.upstreams["main"].pool_mode is PoolMode.SHARED
    assert configuration.admin == Admin(control)
    assert from_options("unix:a", "unix:b").admin == Admin()


def test_audit_and_plugin_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line's audit file and plugins arrive where the file's would, paths relative to where it was typed."""
    monkeypatch.chdir(tmp_path)
    configuration = from_options("unix:a", "unix:b", audit_log="audit.jsonl", plugins=["readonly", "package.Class"])
    assert configuration.audit == Audit(tmp_path / "audit.jsonl")
    assert configuration.plugins == (
        PluginEntry("readonly", "readonly", {}, tmp_path),
        PluginEntry("package.Class", "package.Class", {}, tmp_path),
    )


def test_refused_options() -> None:
    """A fault of the command line is said of the option."""
    problems = problems_of(
        lambda: from_options(
            "tcp:a",
            "tcp:1143",
            pool_mode="sharing",
            audit_log="/no/x.jsonl",
            plugins=["y", "y", "y z"],
            control="/no/z",
        )
    )
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["command line", option]
        for option in (*["--listen", "--upstream", "--pool-mode", "--control", "--audit-log", "--plugin", "--plugin"],)
    ]
    assert problems[2].endswith('expected one of "session", "mailbox", "shared"; got "sharing". Did you mean "shared"?')
    assert problems[-3:] == [
        "command line: --audit-log: /no: cannot be used: No such file or directory",
        'command line: --plugin: "y" is another plugin\'s; expected each to have its own',
        "command line: --plugin: expected a name of letters, digits, dots, colons, dashes and underscores, at most "
        '128; got "y z"',
    ]


KEYS = st.sampled_from(
    [
        *["listener", "upstream", "routing", "auth", "limits", "trace", "allow_root", "extra_verbs", "admin", "plugin"],
        *["pool_size", "pool_keep", "master", "method", "map", "password_file", "password_env", "verifier", "use"],
        *["url", "headers", "ca", "jwks", "issuer", "audience", "checker", "rule", "server_name", "domain", "network"],
        *["table", "sql", "http", "database", "query", "rewrite", "nologin", "delay_until", "control", "name"],
        *["endpoint", "endpoints", "tls", "certificates", "certificate", "private_key", "allow_plaintext", "insecure"],
        *["proxy_protocol", "trusted_proxies", "ca", "server_name", "pool_mode", "idle", "mode", "credential_cache"],
        *["idle_poll", "idle_connections", "park_after", "share_stall"],
        *["default", "user", "file", "until", "legacy", "failed_login_delays", "audit", "sink", "kind", "address"],
        *[field.name for field in fields(Limits)],
    ]
) | st.text(max_size=8)
LEAVES = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.datetimes()
    | st.dates()
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "master",
            "relay",
            "mailbox",
            "shared",
            "poll",
            "htpasswd",
            "http",
            "oauth",
            "cred",
            "dovecot",
            "http://127.0.0.1/",
            "a?",
            "{x}",
        ]
    )
    | st.sampled_from(
        ["tcp:143", "tls:a:993", "unix:x", "tcp:1:interface=127.0.0.1", "none", "implicit", "30s", "64KiB"]
    )
    | st.sampled_from(["\0", "a" * 5000, "/dev/zero", "/", ".", "192.0.2.0/24", "\ud800"])
)
TABLES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=30
)
LISTENERS = st.lists(
    st.fixed_dictionaries({"endpoint": LEAVES | st.just("tcp:143")}, optional={"tls": LEAVES, "certificates": TABLES})
    | TABLES,
    max_size=3,
)
VERIFIERS = st.lists(
    st.fixed_dictionaries(
        {"use": st.sampled_from(["htpasswd", "http", "oauth", "cred"])},
        optional=dict.fromkeys(["file", "url", "ca", "headers", "issuer", "jwks", "checker"], TABLES),
    ),
    max_size=2,
)
RULES = st.lists(
    st.dictionaries(
        st.sampled_from(["listener", "user", "network", "upstream", "table", "sql", "http", "rewrite", "delay_until"]),
        LEAVES | st.lists(LEAVES, max_size=2) | TABLES,
        max_size=4,
    ),
    max_size=3,
)
SINKS = st.lists(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["syslog", "journald", "unix"])},
        optional=dict.fromkeys(["address", "facility", "ca", "server_name"], LEAVES),
    ),
    max_size=2,
)
AUDITS = st.fixed_dictionaries(
    {"file": LEAVES | st.just("audit.jsonl")},
    optional={"sink": SINKS, **dict.fromkeys(["durability", "checkpoint_key", "search_criteria", "subjects"], LEAVES)},
)
PLUGINS = st.lists(
    st.fixed_dictionaries({"use": LEAVES | st.just("readonly")}, optional={"name": LEAVES, "level": TABLES}), max_size=2
)
UPSTREAMS = st.dictionaries(
    KEYS,
    st.fixed_dictionaries({"endpoints": st.lists(LEAVES)}, optional={"tls": LEAVES, "ca": LEAVES, "master": TABLES})
    | TABLES,
)


@example({}, None, {"\x1f": {"endpoints": ["tls:a:1"]}, "a": {"endpoints": ["tls:a:1"]}}, None, None, None, None)
@given(
    document=st.dictionaries(KEYS, TABLES, max_size=6),
    listeners=st.none() | LISTENERS,
    upstreams=st.none() | UPSTREAMS,
    verifiers=st.none() | VERIFIERS,
    rules=st.none() | RULES,
    audit=st.none() | AUDITS,
    plugins=st.none() | PLUGINS,
)
def test_arbitrary_documents(
    document: dict[str, object],
    listeners: list[object] | None,
    upstreams: dict[str, object] | None,
    verifiers: list[object] | None,
    rules: list[object] | None,
    audit: dict[str, object] | None,
    plugins: list[object] | None,
) -> None:
    """Whatever TOML can hold makes a configuration or a `ConfigurationError` in printable lines, nothing else."""
    if listeners is not None:
        document["listener"] = listeners
    if upstreams is not None:
        document["upstream"] = upstreams
    if verifiers is not None:
        document["auth"] = {"mode": "master", "verifier": verifiers}
    if rules is not None:
        document["routing"] = {"rule": rules}
    if audit is not None:
        document["audit"] = audit
    if plugins is not None:
        document["plugin"] = plugins
    problems: list[str] = []
    try:
        configuration = parse(document, "x.toml", CONF)
    except ConfigurationError as error:
        problems = error.problems
    else:
        assert configuration.listeners
        assert configuration.routing.default in configuration.upstreams
        assert isinstance(weakened(configuration, now=NOW), list)
        return
    assert problems
    assert [problem for problem in problems if not problem.startswith("x.toml: ") or not problem.isprintable()] == []
