"""Plugins that see, refuse, change or record commands while they pass."""
