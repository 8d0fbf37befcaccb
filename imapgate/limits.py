"""Every bound the gate keeps, with its default; nothing is unlimited by accident.

Times are seconds, sizes are octets.  The names are the keys of the ``[limits]`` table.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one gate."""

    login_time: float = 60.0
    """From the greeting to a successful login, absolute: bytes do not extend it."""
    tls_handshake: float = 10.0
    client_idle: float = 32 * 60.0
    """Silence of a logged-in client, IDLE included."""
    client_stall: float = 5 * 60.0
    """A client that takes nothing while there is something to send: then abort."""
    connect_try: float = 5.0
    connect_total: float = 15.0
    upstream_first_byte: float = 60.0
    upstream_first_byte_slow: float = 300.0
    """For APPEND, SEARCH, COPY and their like."""
    half_close: float = 5.0
    """For what is in flight when the client has closed its sending side."""
    drain: float = 30.0
    """For commands in flight when the gate is told to end."""
    pool_check: float = 30.0
    """A pooled connection that has been idle for longer is checked by NOOP before it is used."""

    line_before_login: int = 8 * KIB
    line_after_login: int = 64 * KIB
    sasl_line: int = 12_288
    sasl_rounds: int = 10
    argument_literal: int = 64 * KIB
    command: int = 256 * KIB
    message_literal: int = 64 * MIB
    upstream_line: int = 256 * KIB
    """A response line that must be read whole; longer data lines are passed on in parts."""
    nesting_before_login: int = 1
    nesting_after_login: int = 32
    tag: int = 64
    user_name: int = 256
    bad_commands_before_login: int = 3
    bad_commands_after_login: int = 20
    pipelined_commands: int = 50
    share_spool_memory: int = MIB
    """Of what a client of a shared mailbox does not take, this much is kept in memory, so that others can go on."""
    share_spool: int = 64 * MIB
    """The same in all, the rest in a file."""

    connections_per_user_address: int = 10
    connections_per_address: int = 50
    clients: int = 0
    """All clients together; 0: as many as RLIMIT_NOFILE has room for."""
    upstream_connections: int = 0
    """All upstream connections together; 0: as many as RLIMIT_NOFILE has room for."""
    failed_login_delays: tuple[float, ...] = (2.0, 4.0, 8.0, 15.0)


DEFAULTS = Limits()
