"""The dropin: ``twistd imapgate``."""

from twisted.application.service import ServiceMaker

imapgate = ServiceMaker("imapgate", "imapgate.tap", "A pooling IMAP4 proxy and gateway", "imapgate")  # type: ignore[no-untyped-call]
