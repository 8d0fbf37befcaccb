"""Floor 4: where copies of the audit records go, beside the file."""

from imapgate.audit.sinks.datagram import DatagramSink
from imapgate.audit.sinks.formats import AUTHPRIV, Journal, OctetCounted, Syslog, json_line
from imapgate.audit.sinks.outlet import Format, Row, Sink
from imapgate.audit.sinks.stream import StreamSink

__all__ = [
    "AUTHPRIV",
    "DatagramSink",
    "Format",
    "Journal",
    "OctetCounted",
    "Row",
    "Sink",
    "StreamSink",
    "Syslog",
    "json_line",
]
