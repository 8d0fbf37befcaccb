"""The real IMAP servers that the integration tests run, each behind the same small face."""

from tests.integration.servers.authority import CertificateAuthority
from tests.integration.servers.base import Server, ServerFailed, free_port, wait_until
from tests.integration.servers.courier import Courier
from tests.integration.servers.cyrus import Cyrus
from tests.integration.servers.dovecot import Dovecot

SERVERS: dict[str, type[Server]] = {"dovecot": Dovecot, "cyrus": Cyrus, "courier": Courier}

__all__ = [
    "SERVERS",
    "CertificateAuthority",
    "Courier",
    "Cyrus",
    "Dovecot",
    "Server",
    "ServerFailed",
    "free_port",
    "wait_until",
]
