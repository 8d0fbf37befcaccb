"""Floor 4: who is this client, and as whom does it go upstream."""
