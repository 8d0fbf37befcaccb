"""What waits for somebody who takes nothing for now: in memory, beyond a bound in a file, and bounded in all."""

from __future__ import annotations

from tempfile import SpooledTemporaryFile


class Spool:
    """Octets that wait, first in, first out.

    :param memory: so many octets are kept in memory
    :param most: so many in all
    """

    __slots__ = ("_file", "_memory", "_most", "_read", "_written")

    def __init__(self, memory: int, most: int) -> None:
        self._memory = memory
        self._most = most
        self._file: SpooledTemporaryFile[bytes] | None = None
        self._read = self._written = 0

    def __len__(self) -> int:
        return self._written - self._read

    def put(self, data: bytes) -> bool:
        """Add octets; ``False``: there is no room for them, and they are not kept."""
        if self._written + len(data) > self._most:
            return False
        if self._file is None:
            self._file = SpooledTemporaryFile(max_size=self._memory)  # noqa: SIM115  # it lives as long as what waits
        self._file.seek(self._written)
        self._file.write(data)
        self._written += len(data)
        return True

    def take(self, most: int) -> bytes:
        """Take up to so many octets; none are left: nothing is kept any more."""
        if self._file is None:
            return b""
        self._file.seek(self._read)
        data = self._file.read(min(most, len(self)))
        self._read += len(data)
        if self._read == self._written:
            self.close()
        return data

    def close(self) -> None:
        """Forget everything."""
        if self._file is not None:
            self._file.close()
        self._file, self._read, self._written = None, 0, 0
