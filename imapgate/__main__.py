"""``python -m imapgate``: the same as the ``imapgate`` command."""

from imapgate.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
