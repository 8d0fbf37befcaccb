"""Floor 7: the operator's configuration, as typed and checked values.  Knows neither reactor nor ``net/``."""

from imapgate.config.loader import from_options, load, parse
from imapgate.config.plugins import load_plugins
from imapgate.config.weaknesses import weakened

__all__ = ["from_options", "load", "load_plugins", "parse", "weakened"]
