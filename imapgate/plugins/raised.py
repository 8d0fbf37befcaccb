"""What a plugin has raised, in words for whoever wrote it: one line, and where in the plugin it was."""

from __future__ import annotations

from twisted.python.reflect import safe_str

_SHOWN = 300


def described(error: BaseException, module: str, *, private: bool = False) -> str:
    """Return what was raised, and the line of the plugin's module where it came from or passed through.

    :param private: what it says may hold what nobody is to see: only its type is told
    """
    text = type(error).__name__
    if not private and (said := safe_str(error)):
        text += f": {said}"
    text = "".join(letter if letter.isprintable() else " " for letter in text[:_SHOWN])
    line, traceback = 0, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == module:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f"{text} ({module}, line {line})" if line else text
