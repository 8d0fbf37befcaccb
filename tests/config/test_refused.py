"""What a configuration must not hold: each rule, one fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.configurations import (
    Place,
    after,
    before,
    listener,
    make_folder,
    only_listener,
    only_upstream,
    problems_in,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates and files that are none."""
    return make_folder(tmp_path_factory.mktemp("configuration"))


PAIR = "{certificate='a.pem', private_key='a.key'}"

REFUSED: list[tuple[Place, str, str]] = [
    (after, "[[audit]]\nfile = 'x'", "audit: expected a table; got a list"),
    (before, "plugin = 'readonly'\n", 'plugin: expected a list of tables; got "readonly"'),
    (after, "pol_size = 3", 'upstream.legacy.pol_size: unknown key. Did you mean "pool_size"?'),
    (after, "[limits]\nlogin_tme = 3", 'limits.login_tme: unknown key. Did you mean "login_time"?'),
    (
        after,
        "[auth]\nmod = 'pass'",
        'auth.mod: unknown key; expected one of credential_cache, mode, verifier. Did you mean "mode"?',
    ),
    (
        after,
        "[upsteam.x]",
        "upsteam: unknown key; expected one of admin, allow_root, audit, auth, extra_verbs, limits, listener, plugin, "
        'routing, trace, upstream. Did you mean "upstream"?',
    ),
    (after, '[routing]\n"a\\tb" = 1', 'routing."a\\tb": unknown key'),
    (
        only_listener,
        "[upstream.'not so']\nendpoints = ['tcp:127.0.0.1:1']",
        'upstream."not so": expected a name of',
    ),
    (
        before,
        "allow_root = 'true'\n",
        'allow_root: expected true or false; got "true". Did you mean true, without quotes?',
    ),
    (before, "allow_root = 1\n", "allow_root: expected true or false; got 1"),
    (before, "extra_verbs = 'X'\n", 'extra_verbs: expected a list; got "X"'),
    (before, "extra_verbs = [1979-05-27]\n", "extra_verbs[0]: expected a string; got 1979-05-27"),
    (
        before,
        "extra_verbs = ['X', '']\n",
        "extra_verbs[1]: expected a string that is not empty and has no control characters;",
    ),
    (before, "extra_verbs = ['X Y']\n", 'extra_verbs[0]: expected a verb such as "XLIST"; got "X Y"'),
    (
        before,
        "extra_verbs = ['compress']\n",
        'extra_verbs[0]: expected a verb that leaves the stream as it is; got "compress".',
    ),
    (after, "[[limits]]", "limits: expected a table; got a list"),
    (after, "[auth]\nmode = {}", 'auth.mode: expected one of "pass", "master", "relay"; got a table'),
    (
        after,
        "[auth]\nmode = 'Pass'",
        'auth.mode: expected one of "pass", "master", "relay"; got "Pass". Did you mean "pass"?',
    ),
    (after, "[limits]\ntag = true", "limits.tag: expected a size such as"),
    (
        after,
        "[limits]\ntag = '64 KiB'",
        'limits.tag: expected a size such as "64KiB", "1MiB" or a number of octets, from 1 to',
    ),
    (after, "[limits]\ntag = 0x" + "f" * 9999, "got a number of more than 64 bits"),
    (after, "[limits]\nline_before_login = 511", "a number of octets, from 512 to 1073741824; got 511"),
    (after, "[limits]\nmessage_literal = '4GiB'", 'from 1 to 4294967295; got "4GiB"'),
    (after, "[limits]\nsasl_rounds = 0", "limits.sasl_rounds: expected a whole number from 1 to 1000000; got 0"),
    (after, "[limits]\nclients = -1", "limits.clients: expected a whole number from 0 to 1000000; got -1"),
    (
        after,
        "[limits]\nlogin_time = '1 minute'",
        'limits.login_time: expected a duration such as "30s", "5m" or a number of',
    ),
    (after, "[limits]\nlogin_time = 0", 'more than 0s to "7d"; got 0'),
    (after, "[limits]\nlogin_time = true", 'more than 0s to "7d"; got true'),
    (after, "[limits]\nlogin_time = inf", 'more than 0s to "7d"; got inf'),
    (after, "[limits]\nlogin_time = nan", 'more than 0s to "7d"; got nan'),
    (after, "[limits]\nlogin_time = '8d'", 'more than 0s to "7d"; got "8d"'),
    (
        after,
        "[limits]\nfailed_login_delays = ['0s', 's']",
        'limits.failed_login_delays[1]: expected a duration such as "30s"',
    ),
    (after, "[limits]\nfailed_login_delays = [" + "1, " * 33 + "]", "limits.failed_login_delays: expected at most 32"),
    (
        after,
        "[limits]\nargument_literal = '1MiB'",
        "limits.argument_literal: 1048576; expected at most command, which is 262144",
    ),
    (after, "[limits]\ncommand = '1KiB'", "limits.command: 1024; expected at least argument_literal, which is 65536"),
    (
        after,
        "[limits]\nshare_spool_memory = '128MiB'",
        "limits.share_spool_memory: 134217728; expected at most share_spool, which is 67108864",
    ),
    (
        after,
        "[limits]\nshare_spool = '64KiB'",
        "limits.share_spool: 65536; expected at least share_spool_memory, which is 1048576",
    ),
    (after, "[limits]\nshare_spool_memory = 0", "a number of octets, from 1024 to 1073741824; got 0"),
    (after, "[limits]\nconnect_try = '20s'", "limits.connect_try: 20s; expected at most connect_total, which is 15s"),
    (only_upstream, "", "no [[listener]]; expected at least one"),
    (
        only_upstream,
        "[listener]\nendpoint = 'tcp:1:interface=127.0.0.1'",
        "listener: expected a list of tables; got a table. Write [[",
    ),
    (only_upstream, "listener = [3]", "listener[0]: expected a table; got 3"),
    (only_upstream, "[[listener]]", 'listener[0].endpoint: missing; expected a server endpoint such as "tcp:993"'),
    (
        listener,
        "tls = 'implicit'",
        'listener[0].certificates: missing; expected at least one pair with tls = "implicit"',
    ),
    (
        listener,
        "tls = 'ssl'",
        'listener[0].tls: expected one of "implicit", "starttls", "none"; got "ssl". Did you mean "implicit"?',
    ),
    (listener, "tls = 'startls'", 'got "startls". Did you mean "starttls"?'),
    (listener, "tls = 'sausage'", 'got "sausage"'),
    (listener, "certificates = [PAIR]", 'listener[0].certificates: given with tls = "none"'),
    (
        listener,
        "tls='implicit'\ncertificates=[{certificate='a.pem'}]",
        "listener[0].certificates[0].private_key: missing",
    ),
    (
        listener,
        "tls='implicit'\ncertificates=[PAIR]\nallow_plaintext=true",
        'listener[0].allow_plaintext: true with tls = "implicit"',
    ),
    (listener, "proxy_protocol = true", "listener[0].trusted_proxies: missing"),
    (listener, "trusted_proxies = ['192.0.2.1']", "listener[0].trusted_proxies: given without proxy_protocol"),
    (
        listener,
        "proxy_protocol = true\ntrusted_proxies = ['192.0.2.1/24']",
        'listener[0].trusted_proxies[0]: expected a network without host bits; got "192.0.2.1/24". '
        'Did you mean "192.0.2.0/24"?',
    ),
    (listener, "trusted_proxies = ['example.org']", "listener[0].trusted_proxies[0]: expected a network such as"),
    (listener, "certificate = 'a.pem'", "listener[0].certificate: unknown key"),
    (
        listener,
        "[[listener]]\nendpoint='tcp:1143:interface=127.0.0.1'",
        "listener[1].endpoint: the same as listener[0]'s",
    ),
    (
        listener,
        "[[listener]]\nendpoint = 'tcp:143'",
        "listener[1].tls: plain connections are for loopback and Unix sockets, which tcp:143 is not; expected tls =",
    ),
    (listener, "[[listener]]\nendpoint = 'systemd:domain=INET:index=0'", "listener[1].tls: plain connections"),
    (
        listener,
        "[[listener]]\nendpoint = 'unix:s'\nproxy_protocol = true",
        "listener[1].proxy_protocol: true on a Unix socket",
    ),
    (
        listener,
        "tls = 'implicit'\ncertificates = [{certificate='gone.pem', private_key='a.key'}]",
        "certificates[0].certificate: gone.pem: cannot be read: No such file or directory",
    ),
    (
        listener,
        "tls = 'implicit'\ncertificates = [{certificate='empty.pem', private_key='a.key'}]",
        "certificates[0].certificate: empty.pem: holds no PEM certificate",
    ),
    (
        listener,
        "tls = 'implicit'\ncertificates = [{certificate='huge.pem', private_key='a.key'}]",
        "certificates[0].certificate: huge.pem: is too large",
    ),
    (
        listener,
        "tls = 'implicit'\ncertificates = [{certificate='fifo.pem', private_key='a.key'}]",
        "certificates[0].certificate: fifo.pem: is not a regular file",
    ),
    (
        listener,
        "tls = 'implicit'\ncertificates = [{certificate='a.pem', private_key='empty.pem'}]",
        "certificates[0].private_key: empty.pem: holds no PEM private key",
    ),
    (
        listener,
        "tls = 'implicit'\ncertificates = [{certificate='a.pem', private_key='encrypted.key'}]",
        "certificates[0].private_key: encrypted.key: is encrypted",
    ),
    (
        listener,
        "tls = 'implicit'\ncertificates = [{certificate='a.pem', private_key='b.key'}]",
        "certificates[0].private_key: b.key: is not the key of a.pem",
    ),
    (
        listener,
        "tls = 'implicit'\ncertificates = [PAIR, {certificate='nameless.pem', private_key='nameless.key'}]",
        "certificates[1].certificate: nameless.pem: has no DNS name",
    ),
    (only_listener, "", "no [upstream.NAME]; expected at least one"),
    (only_listener, "[[upstream]]\nendpoints = ['tcp:127.0.0.1:1']", "upstream: expected a table; got a list"),
    (only_listener, "[upstream]\nx = 3", "upstream.x: expected a table; got 3"),
    (only_listener, "[upstream.x]", "upstream.x.endpoints: missing; expected a list such as"),
    (only_listener, "[upstream.x]\nendpoints = 'tcp:a:1'", 'upstream.x.endpoints: expected a list; got "tcp:a:1"'),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['tcp:127.0.0.1:1']\nendpoint = ''",
        'upstream.x.endpoint: unknown key. Did you mean "endpoints"?',
    ),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['tls:a:1']\ntls = 'starttls'",
        'upstream.x.tls: "starttls" with a tls: endpoint',
    ),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['tls:a:1']\ntls = 'none'",
        'upstream.x.tls: "none" with a tls: endpoint',
    ),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['tls:a:1', 'tcp:b:2']",
        "upstream.x.endpoints: tls: beside another kind",
    ),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['tls:a:1']\ninsecure = true\nca = 'a.pem'",
        "upstream.x.ca: given with insecure = true",
    ),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['tcp:127.0.0.1:1']\nca = 'a.pem'",
        'upstream.x.ca: given with tls = "none"',
    ),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['tcp:a:1']\ntls = 'none'\nserver_name = 'b'",
        'upstream.x.server_name: given with tls = "none"',
    ),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['unix:s']\ninsecure = true",
        'upstream.x.insecure: given with tls = "none"',
    ),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['unix:s']\ntls = 'starttls'",
        "upstream.x.server_name: missing; expected the name to verify",
    ),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['tls:a:1']\nserver_name = 'a b'",
        'upstream.x.server_name: expected a host name or an IP address; got "a b"',
    ),
    (
        only_listener,
        "[upstream.x]\nendpoints = ['tls:a:1']\nca = 'empty.pem'",
        "upstream.x.ca: empty.pem: holds no PEM certificate",
    ),
    (
        after,
        "[upstream.b]\nendpoints = ['tcp:127.0.0.1:2']",
        "routing.default: missing; expected one of legacy, b, as there is",
    ),
    (
        after,
        "[routing]\ndefault = 'legasy'",
        'routing.default: expected "legacy"; got "legasy". Did you mean "legacy"?',
    ),
    (after, "[routing]\ndefualt = 'legacy'", "routing.defualt: unknown key; expected one of default, rule."),
    (
        listener,
        "name = 'a'\n[[listener]]\nendpoint = 'tcp:1:interface=127.0.0.1'\nname = 'a'",
        'listener[1].name: "a" is another listener\'s; expected each to have its own',
    ),
    (
        listener,
        "[[listener]]\nendpoint = 'tcp:1:interface=127.0.0.1'\nname = 'tcp:1143:interface=127.0.0.1'",
        'listener[1].name: "tcp:1143:interface=127.0.0.1" is another',
    ),
    (listener, "name = ''", "listener[0].name: expected a string that is not empty"),
    (after, "[admin]\ncontrol = 'no/control'", "admin.control: no: cannot be used: No such file or directory"),
    (after, "[admin]\ncontrol_read = 'a.pem/control'", "admin.control_read: a.pem: is not a folder"),
    (
        after,
        "[admin]\ncontrol = 'x'\ncontrol_read = './x'",
        "admin.control_read: the same as control's; expected",
    ),
    (
        before,
        "[[listener]]\nendpoint = 'unix:x'\n[admin]\ncontrol = 'x'\n",
        "admin.control: the same as a listener's; expected a path of its own",
    ),
    (after, f"[admin]\ncontrol = '{'x' * 108}'", "admin.control: expected a path of at most 107 octets; got"),
    (after, "[admin]\ncontrol = 3", "admin.control: expected a string; got 3"),
    (
        after,
        "[admin]\ncontrols = 'x'",
        "admin.controls: unknown key; expected one of control, control_read. Did",
    ),
    (after, "[limits]\nupstream_connections = -1", "limits.upstream_connections: expected a whole number from 0 to"),
    (after, "[limits]\npool_check = '0s'", 'limits.pool_check: expected a duration such as "30s"'),
    (after, "[trace]\nfile = 'x'\nuntil = '1h'", "trace.user: missing; expected the name of one user"),
    (after, "[trace]\nuser = 'x'\nuntil = '1h'", "trace.file: missing; expected the path of the trace file"),
    (after, "[trace]\nuser = 'x'\nfile = 'x'", 'trace.until: missing; expected a duration such as "1h"'),
    (
        after,
        "[trace]\nuser = 'x'\nfile = 'no/x'\nuntil = '1h'",
        "trace.file: no: cannot be used: No such file or directory",
    ),
    (after, "[trace]\nuser = 'x'\nfile = 'a.pem/x'\nuntil = '1h'", "trace.file: a.pem: is not a folder"),
    (
        after,
        "[trace]\nuser = \"x\\n\"\nfile = 'x'\nuntil = '1h'",
        "trace.user: expected a string that is not empty and has no",
    ),
]


@pytest.mark.parametrize(("place", "text", "expected"), REFUSED)
def test_refused(place: Place, text: str, expected: str, folder: Path) -> None:
    """Each fault is found, is the only one found, and is worded with its path and what was expected."""
    problems = problems_in(place(text.replace("PAIR", PAIR)), folder)
    assert len(problems) == 1, problems
    assert expected in problems[0]
