"""Floor 5: Twisted protocols and endpoints.  Moves bytes and performs the core's effects; knows no IMAP."""
