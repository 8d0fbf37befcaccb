"""Floor 3: one client's conversation as a pure state machine: bytes in, a list of effects out."""
