"""imapgate: a pooling IMAP4 proxy and gateway."""

__version__ = "0.1.0.dev0"
