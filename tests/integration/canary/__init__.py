"""Canaries: many users at once, every octet marked with its owner; one foreign mark fails (THREATS A31)."""
