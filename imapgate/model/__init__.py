"""Floor 2: what IMAP's things are: commands, capabilities, secrets, failures."""
