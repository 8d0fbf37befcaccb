"""Sphinx configuration; nothing here, and nothing in the build, uses the network or a tool beside Python."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from imapgate import __version__  # noqa: E402

project = "imapgate"
author = "The imapgate authors"
copyright = "2026, the imapgate authors"
version = release = __version__

extensions = ["from_code", "plugin_tables", "audit_tables", "sharing_tables"]
exclude_patterns = ["_build", "performance-*.rst"]
nitpicky = True
highlight_language = "none"

html_theme = "furo"
html_title = f"imapgate {__version__}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sphinx = False
html_copy_source = False
