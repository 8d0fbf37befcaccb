"""A value that must never be seen: passwords, SASL payloads, tokens (THREATS A40)."""

from __future__ import annotations

from typing import NamedTuple, final


@final
class Secret:
    """Bytes whose ``repr``, ``str`` and format are redacted; :meth:`reveal` is the one way to them."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes themselves; only for writing them where they have to go."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not to be pickled")


class Credentials(NamedTuple):
    """What a client gave to log in; ``authorisation`` is as whom it wants to act, empty: as itself."""

    user: bytes
    password: Secret
    authorisation: bytes = b""
