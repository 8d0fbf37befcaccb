"""Floor 1: bytes, and nothing but bytes: lines, literals, tokens, and writing them again."""
