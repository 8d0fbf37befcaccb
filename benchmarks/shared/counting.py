"""A TCP relay that counts the IMAP commands going through it, so exactly what a server is asked.

Knows tags, literals and where a line ends; what comes back it passes on unread.  It runs in a thread of whoever
measures, and is no part of what is timed.
"""

import asyncio
import collections
import contextlib
import re
import threading

LITERAL = re.compile(rb"\{(\d+)\+?\}\r?\n\Z")


class Commands:
    """What one client says, cut into commands; each is added to counts by its verb."""

    def __init__(self, counts):
        self.counts = counts
        self.unread = b""
        self.literal = 0  # octets of a literal still to come
        self.inside = False  # this line goes on with the command before

    def feed(self, data):
        while data:
            if self.literal:
                taken = min(self.literal, len(data))
                self.literal -= taken
                data = data[taken:]
                continue
            line, end, data = data.partition(b"\n")
            self.unread += line + end
            if end:
                self.line(self.unread)
                self.unread = b""

    def line(self, line):
        words = line.split(None, 3)
        # DONE and the answers to a SASL challenge have no tag, and are no commands
        if not self.inside and len(words) > 1:
            verb = words[1].upper()
            self.counts[(verb + b" " + words[2].upper() if verb == b"UID" else verb).decode("ascii", "replace")] += 1
        announced = LITERAL.search(line)
        self.inside = bool(announced)
        self.literal = int(announced[1]) if announced else 0


async def pump(reader, writer, seen=None):
    try:
        while data := await reader.read(65536):
            if seen:
                seen.feed(data)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Counter:
    """Listens on a port of its own, goes to the server's; counts is how often each verb came."""

    def __init__(self, port):
        self.counts = collections.Counter()
        self.server_port = port
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.listener = self._call(asyncio.start_server(self._relay, "127.0.0.1", 0, backlog=4096))
        self.port = self.listener.sockets[0].getsockname()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._call(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _relay(self, reader, writer):
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            writer.close()
            return
        with contextlib.suppress(asyncio.CancelledError):  # by _stop
            await asyncio.gather(pump(reader, back_writer, Commands(self.counts)), pump(back_reader, writer))

    async def _stop(self):
        self.listener.close()
        mine = asyncio.current_task()
        others = [t for t in asyncio.all_tasks() if t is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def now(self):
        """A copy of the counts, made where nothing is being added."""

        async def copy():
            return self.counts.copy()

        return self._call(copy())
