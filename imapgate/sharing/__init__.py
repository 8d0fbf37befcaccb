"""Floor 3, above the session: one user's sessions on fewer upstream connections; each keeps its own exact view."""
