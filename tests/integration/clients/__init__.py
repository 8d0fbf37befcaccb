"""Real IMAP clients through the gate; each test looks at the mailbox on the server itself afterwards."""
