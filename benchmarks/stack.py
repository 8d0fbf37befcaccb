#!/usr/bin/env python3
"""Start, stop and inspect the benchmark's backend and peer proxies.

  stack.py seed | start [NAME...] | stop [NAME...] | status

Everything lives under $BENCH_ROOT (default /tmp/imapgate-bench); all listeners are
on 127.0.0.1. Only processes started here are signalled, by pid. The gate and the Python
relays run in the environment of the interpreter that runs this file (or $BENCH_VENV).
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.environ.get("BENCH_ROOT", "/tmp/imapgate-bench")
VENV = os.environ.get("BENCH_VENV", sys.prefix)
BACKEND = 20143
BACKEND_TLS = 20993
UID = 5000
PASSWORD = "pw"
NUSERS = 200
MANY = 20000
BIG = 50_000_000
LOCK = None
PEM = os.path.join(ROOT, "tls", "both.pem")
MAIL = os.path.join(ROOT, "mail")

# name: (plain port, implicit-TLS port or None)
PORTS = {
    "direct": (BACKEND, BACKEND_TLS),
    "imapgate": (19143, 19993),
    "imapgate-pool": (19144, 19994),
    "imapgate-pool-log": (19145, 19995),
    "imapgate-audit": (19146, 19996),
    "imapgate-durable": (19147, 19997),
    "imapgate-plugin": (19148, 19998),
    "dovecot": (21143, 21993),
    "nginx": (22143, 22993),
    "perdition": (23143, 23993),
    "imapproxy": (24143, None),
    "haproxy": (25143, 25993),
    "tw-bytes": (26143, 26993),
    "tw-bytes-uv": (27143, 27993),
    "tw-lines": (28143, None),
    "tw-chunk": (29143, 29993),
    "uv-native": (30143, 30993),
    "tw-pool": (31143, 31993),
}


def d(*p):
    path = os.path.join(ROOT, *p)
    os.makedirs(path, exist_ok=True)
    return path


def put(path, text):
    with open(path, "w") as f:
        f.write(text)
    return path


def pem():
    d("tls")
    if not os.path.exists(PEM):
        key, crt = (os.path.join(ROOT, "tls", n) for n in ("key.pem", "cert.pem"))
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "3650",
                "-subj",
                "/CN=localhost",
                "-keyout",
                key,
                "-out",
                crt,
            ],
            check=True,
            capture_output=True,
        )
        put(PEM, open(key).read() + open(crt).read())
        for p in (key, crt, PEM):
            os.chmod(p, 0o644)
    return PEM


DOVECOT_COMMON = """
protocols = imap
listen = 127.0.0.1
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/error.log
info_log_path = {dir}/info.log
instance_name = {name}
disable_plaintext_auth = no
auth_mechanisms = plain login
ssl = yes
ssl_cert = <{tls}/cert.pem
ssl_key = <{tls}/key.pem
login_trusted_networks = 127.0.0.0/8
default_internal_user = dovecot
default_login_user = dovenull
default_vsz_limit = 2G
default_client_limit = 20000
default_process_limit = 6000
service imap-login {{
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  client_limit = 8000
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tlsport}
  }}
}}
service anvil {{
  client_limit = 20000
}}
service auth {{
  client_limit = 20000
}}
service stats {{
  client_limit = 20000
}}
"""


def conf_backend():
    dr = d("direct")
    put(
        f"{dr}/users",
        "".join(
            f"{u}:{{PLAIN}}{PASSWORD}:::::\n"
            for u in [f"u{i}" for i in range(1, NUSERS + 1)] + ["big1", "many1", "app1", "large1"]
        ),
    )
    os.chmod(f"{dr}/users", 0o644)
    return put(
        f"{dr}/dovecot.conf",
        DOVECOT_COMMON.format(
            dir=dr, name="benchbackend", tls=os.path.join(ROOT, "tls"), port=BACKEND, tlsport=BACKEND_TLS
        )
        + f"""
mail_location = maildir:{MAIL}/%u
mail_fsync = never
maildir_very_dirty_syncs = yes
mail_max_userip_connections = 0
auth_cache_size = 16M
first_valid_uid = {UID}
passdb {{
  driver = passwd-file
  args = {dr}/users
}}
userdb {{
  driver = static
  args = uid={UID} gid={UID} home={MAIL}/%u
}}
service imap {{
  service_count = 1000
  idle_kill = 2 s
  process_min_avail = 4
  process_limit = 6000
}}
""",
    )


def conf_dovecot():
    dr = d("dovecot")
    return put(
        f"{dr}/dovecot.conf",
        DOVECOT_COMMON.format(
            dir=dr,
            name="benchproxy",
            tls=os.path.join(ROOT, "tls"),
            port=PORTS["dovecot"][0],
            tlsport=PORTS["dovecot"][1],
        )
        + f"""
auth_cache_size = 16M
passdb {{
  driver = static
  args = nopassword=y proxy=y host=127.0.0.1 port={BACKEND}
}}
""",
    )


def conf_nginx():
    dr = d("nginx")
    p, t = PORTS["nginx"]
    return put(
        f"{dr}/nginx.conf",
        f"""
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
user nobody nogroup;
worker_processes 2;
worker_rlimit_nofile 20000;
pid {dr}/nginx.pid;
error_log {dr}/error.log warn;
events {{ worker_connections 9500; }}
http {{
  access_log off;
  client_body_temp_path {dr}/t1; proxy_temp_path {dr}/t2; fastcgi_temp_path {dr}/t3;
  uwsgi_temp_path {dr}/t4; scgi_temp_path {dr}/t5;
  server {{
    listen 127.0.0.1:22080 backlog=4096;
    location / {{
      add_header Auth-Status OK; add_header Auth-Server 127.0.0.1; add_header Auth-Port {BACKEND};
      return 200 "";
    }}
  }}
}}
mail {{
  auth_http 127.0.0.1:22080/auth;
  proxy_pass_error_message on;
  imap_capabilities "IMAP4rev1" "LITERAL+" "IDLE" "ID";
  imap_auth plain login;
  proxy_timeout 1h;
  proxy_buffer 16k;
  ssl_certificate {ROOT}/tls/cert.pem;
  ssl_certificate_key {ROOT}/tls/key.pem;
  server {{ listen 127.0.0.1:{p} backlog=4096; protocol imap; }}
  server {{ listen 127.0.0.1:{t} ssl backlog=4096; protocol imap; }}
}}
""",
    )


def conf_haproxy():
    dr = d("haproxy")
    p, t = PORTS["haproxy"]
    return put(
        f"{dr}/haproxy.cfg",
        f"""
global
  maxconn 9000
  nbthread 2
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
frontend plain
  bind 127.0.0.1:{p} backlog 4096
  default_backend imap
frontend tls
  bind 127.0.0.1:{t} ssl crt {PEM} backlog 4096
  default_backend imap
backend imap
  server s1 127.0.0.1:{BACKEND}
""",
    )


def conf_imapproxy():
    dr = d("imapproxy")
    os.chmod(dr, 0o777)
    return put(
        f"{dr}/imapproxy.conf",
        f"""server_hostname 127.0.0.1
connect_retries 3
connect_delay 1
cache_size 6000
listen_port {PORTS["imapproxy"][0]}
listen_address 127.0.0.1
server_port {BACKEND}
cache_expiration_time 300
proc_username nobody
proc_groupname nogroup
stat_filename {dr}/pimpstats
protocol_log_filename {dr}/protocol.log
syslog_facility LOG_MAIL
syslog_prioritymask LOG_ERR
send_tcp_keepalives no
enable_select_cache {os.environ.get("BENCH_IMAPPROXY_SELECT_CACHE", "no")}
foreground_mode yes
force_tls no
enable_admin_commands no
ipversion_only 4
""",
    )


def conf_imapgate(name="imapgate", cache="0s", more="", **limits):
    """The gate as it is by default, but for bounds that a load from one address must pass.

    cache: credential_cache; more: further tables.
    """
    dr = d(name)
    p, t = PORTS[name]
    bounds = {"connections_per_address": 100_000, "connections_per_user_address": 100_000, **limits}
    return put(
        f"{dr}/imapgate.toml",
        f"""
[[listener]]
endpoint = "tcp:{p}:interface=127.0.0.1:backlog=4096"
tls = "none"

[[listener]]
endpoint = "tcp:{t}:interface=127.0.0.1:backlog=4096"
tls = "implicit"
certificates = [{{ certificate = "{ROOT}/tls/cert.pem", private_key = "{ROOT}/tls/key.pem" }}]

[upstream.backend]
endpoints = ["tcp:127.0.0.1:{BACKEND}"]
tls = "none"
pool_size = 1000
pool_keep = 10

[auth]
mode = "pass"
credential_cache = "{cache}"

[limits]
"""
        + "".join(f"{k} = {v}\n" for k, v in bounds.items())
        + more,
    )


def audited(name, durability):
    """The gate with an audit trail."""
    file = os.path.join(d(name), "audit.jsonl")
    return imapgate_cmd(name, "0s", f'\n[audit]\nfile = "{file}"\ndurability = "{durability}"\n')


# one rule, for a verb that the load does not have
PLUGIN = '\n[[plugin]]\nuse = "command_acl"\nrules = [{ action = "deny", verbs = ["DELETE"] }]\n'


def imapgate_cmd(*which):
    return [
        os.path.join(VENV, "bin/twistd"),
        "-n",
        "--pidfile=",
        *os.environ.get("BENCH_TWISTD", "").split(),
        "imapgate",
        "--config",
        conf_imapgate(*which),
    ]


def perdition_cmd(tls):
    log = os.path.join(d("perdition"), "log")
    open(log, "a").close()
    shutil.chown(log, "nobody", "nogroup")
    port = PORTS["perdition"][1 if tls else 0]
    cmd = [
        "perdition",
        "--no_daemon",
        "--protocol",
        "IMAP4S" if tls else "IMAP4",
        "--bind_address",
        "127.0.0.1",
        "--listen_port",
        str(port),
        "--outgoing_server",
        "127.0.0.1",
        "--outgoing_port",
        str(BACKEND),
        "--no_lookup",
        "--map_library",
        "",
        "--pid_file",
        "",
        "--username",
        "nobody",
        "--group",
        "nogroup",
        "--connection_limit",
        "0",
        "--timeout",
        "3600",
        "--server_resp_line",
        "--quiet",
        "--imap_capability",
        "IMAP4 IMAP4REV1 LITERAL+ IDLE",
        "--log_facility",
        log,
        "--config_file",
        "/dev/null",
    ]
    if tls:
        cmd += [
            "--ssl_mode",
            "ssl_listen",
            "--ssl_cert_file",
            f"{ROOT}/tls/cert.pem",
            "--ssl_key_file",
            f"{ROOT}/tls/key.pem",
            "--ssl_listen_ciphers",
            "DEFAULT",
        ]
    return cmd


def relay(mode, reactor, name, *extra):
    p, t = PORTS[name]
    cmd = [
        os.path.join(VENV, "bin/python"),
        os.path.join(HERE, "relays/twisted_relay.py"),
        mode,
        reactor,
        str(p),
        str(BACKEND),
    ]
    if t:
        cmd += ["--tls", str(t), PEM]
    return [cmd + list(extra)]


COMMANDS = {
    "direct": lambda: [["dovecot", "-F", "-c", conf_backend()]],
    "imapgate": lambda: [imapgate_cmd()],
    # like the other pools here, without a log line for each session
    "imapgate-pool": lambda: [["env", "IMAPGATE_LOG_LEVEL=warn", *imapgate_cmd("imapgate-pool", "60s")]],
    "imapgate-pool-log": lambda: [imapgate_cmd("imapgate-pool-log", "60s")],
    "imapgate-audit": lambda: [audited("imapgate-audit", "buffered")],
    "imapgate-durable": lambda: [audited("imapgate-durable", "durable")],
    "imapgate-plugin": lambda: [imapgate_cmd("imapgate-plugin", "0s", PLUGIN)],
    "dovecot": lambda: [["dovecot", "-F", "-c", conf_dovecot()]],
    "nginx": lambda: [["nginx", "-c", conf_nginx(), "-p", d("nginx"), "-g", "daemon off;"]],
    "perdition": lambda: [perdition_cmd(False), perdition_cmd(True)],
    "imapproxy": lambda: [["imapproxyd", "-f", conf_imapproxy(), "-p", d("imapproxy") + "/pid"]],
    "haproxy": lambda: [["haproxy", "-db", "-q", "-f", conf_haproxy()]],
    "tw-bytes": lambda: relay("bytes", "epoll", "tw-bytes"),
    "tw-bytes-uv": lambda: relay("bytes", "uvloop", "tw-bytes-uv"),
    "tw-lines": lambda: relay("lines", "epoll", "tw-lines"),
    "tw-chunk": lambda: relay("chunk", "epoll", "tw-chunk"),
    "uv-native": lambda: relay("native", "uvloop", "uv-native"),
    "tw-pool": lambda: relay("pool", "epoll", "tw-pool"),
}


def stat(pid):
    """(ppid, starttime, cpu ticks incl. waited children) or None."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            s = f.read()
    except OSError:
        return None
    r = s[s.rindex(")") + 2 :].split()
    if r[0] == "Z":
        return None
    return int(r[1]), int(r[19]), sum(map(int, r[11:15]))


def tree(roots):
    """All live pids at or below the given pids."""
    kids = {}
    for e in os.listdir("/proc"):
        if e.isdigit():
            s = stat(int(e))
            if s:
                kids.setdefault(s[0], []).append(int(e))
    out, todo = [], [p for p in roots if stat(p)]
    while todo:
        p = todo.pop()
        out.append(p)
        todo += kids.get(p, [])
    return out


def pids(name):
    """Live pids of the processes started for this name (pid reuse checked)."""
    out = []
    try:
        with open(os.path.join(ROOT, "pids", name)) as f:
            for line in f:
                pid, start = map(int, line.split())
                s = stat(pid)
                if s and s[1] == start:
                    out.append(pid)
    except OSError:
        pass
    return out


def listening(port):
    s = socket.socket()
    s.settimeout(1)
    try:
        s.connect(("127.0.0.1", port))
        return True
    except OSError:
        return False
    finally:
        s.close()


def start(name):
    if pids(name):
        return
    d("pids")
    lines = []
    for cmd in COMMANDS[name]():
        log = open(os.path.join(d("logs"), name + ".log"), "ab")
        p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)
        time.sleep(0.1)
        s = stat(p.pid)
        if not s:
            sys.exit(f"{name}: exited at once: {' '.join(cmd)}; see {log.name}")
        lines.append(f"{p.pid} {s[1]}\n")
    put(os.path.join(ROOT, "pids", name), "".join(lines))
    for port in PORTS[name]:
        for _ in range(100):
            if port is None or listening(port):
                break
            time.sleep(0.1)
        else:
            print(f"{name}: nothing listens on {port}; see {d('logs')}/{name}.log", file=sys.stderr)


def stop(name):
    mine = pids(name)
    every = [(p, stat(p)[1]) for p in tree(mine) if stat(p)]
    for sig, wait in ((signal.SIGTERM, 5), (signal.SIGKILL, 2)):
        left = [(p, st) for p, st in every if (stat(p) or (0, 0))[1] == st]
        for p, _ in left if sig == signal.SIGKILL or name == "perdition" else [x for x in left if x[0] in mine]:
            try:
                os.kill(p, sig)
            except ProcessLookupError:
                pass
        end = time.time() + wait
        while time.time() < end and any((stat(p) or (0, 0))[1] == st for p, st in every):
            time.sleep(0.05)
    try:
        os.remove(os.path.join(ROOT, "pids", name))
    except OSError:
        pass


def msg(i, size):
    head = (
        f"Return-Path: <s{i}@example.org>\r\nMessage-ID: <{i}.bench@example.org>\r\n"
        f"Date: Mon, 0{1 + i % 9} Jan 2024 10:00:00 +0000\r\nFrom: Sender {i} <s{i}@example.org>\r\n"
        f"To: User <u@example.org>\r\nSubject: bench message number {i}\r\n\r\n"
    ).encode()
    line = b"The quick brown fox jumps over the lazy dog, said the benchmark again and ag\r\n"
    n = size - len(head)
    return head + (line * (n // len(line) + 1))[: n - 2] + b"\r\n"


def maildir(user, sizes):
    base = os.path.join(MAIL, user)
    shutil.rmtree(base, ignore_errors=True)
    for s in ("cur", "new", "tmp"):
        os.makedirs(os.path.join(base, s))
    for i, size in enumerate(sizes, 1):
        m = msg(i, size)
        with open(os.path.join(base, "cur", f"{1700000000 + i}.M{i}P1.bench,S={len(m)},W={len(m)}:2,S"), "wb") as f:
            f.write(m)


def seed():
    os.makedirs(MAIL, exist_ok=True)
    for i in range(1, NUSERS + 1):
        maildir(f"u{i}", [1500] * 20)
    maildir("big1", [BIG])
    maildir("many1", [700] * MANY)
    maildir("app1", [])
    for base, dirs, files in os.walk(MAIL):
        os.chown(base, UID, UID)
        for f in files:
            os.chown(os.path.join(base, f), UID, UID)
    put(os.path.join(ROOT, "seeded"), "yes\n")


def alone():
    """Wait until no other run uses this root, and keep others out until this process ends.

    One run would stop what another measures, and take its CPU.
    """
    os.makedirs(ROOT, exist_ok=True)
    global LOCK
    LOCK = open(os.path.join(ROOT, "lock"), "w")
    try:
        fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another run uses {ROOT}; waiting", file=sys.stderr, flush=True)
        fcntl.flock(LOCK, fcntl.LOCK_EX)


def prepare():
    """Make what every start needs: the folder, a certificate, the mail store."""
    os.makedirs(ROOT, exist_ok=True)
    os.chmod(ROOT, 0o755)
    pem()
    if not os.path.exists(os.path.join(ROOT, "seeded")):
        seed()


def main():
    verb, names = (sys.argv[1:2] or ["status"])[0], sys.argv[2:]
    os.makedirs(ROOT, exist_ok=True)
    os.chmod(ROOT, 0o755)
    if verb == "seed":
        seed()
    elif verb == "start":
        prepare()
        for n in names or PORTS:
            start(n)
    elif verb == "stop":
        for n in names or list(PORTS)[::-1]:
            stop(n)
    elif verb == "status":
        for n in PORTS:
            print(f"{n:12} pids {pids(n)} ports {PORTS[n]} {[listening(p) for p in PORTS[n] if p]}")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
