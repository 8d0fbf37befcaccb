#!/usr/bin/env python3
"""A scripted IMAP upstream for memory.py: lets everyone in and plays one message of a given size.

  scripted.py SIZE

Prints its port, then answers each line on its standard input with a line of JSON: the connections
it holds and the literal octets it has handed to the kernel. Ends at the end of its input.
"""

import asyncio
import json
import re
import socket
import sys

CAPABILITY = b"IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN UIDPLUS IDLE UNSELECT"
MARKER = re.compile(rb"\{([0-9]+)(\+?)\}\r\n\Z")
BLOCK = b"All work and no play makes a dull message body, line after line of it.....\r\n" * 840  # about 64 KiB


class Upstream:
    def __init__(self, size):
        self.size, self.sent, self.open = size, 0, 0

    async def serve(self, reader, writer):
        # Small kernel buffers: what is measured is the gate's memory, not this machine's.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        self.open += 1
        try:
            writer.write(b"* OK [CAPABILITY " + CAPABILITY + b"] scripted\r\n")
            while command := await self.command(reader, writer):
                await self.answer(command, reader, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def command(self, reader, writer):
        """One command, its literals gathered and dropped; empty at the end."""
        line = whole = await reader.readline()
        while found := MARKER.search(line):
            if not found[2]:
                writer.write(b"+ go on\r\n")
            await reader.readexactly(int(found[1]))
            line = await reader.readline()
            whole += line
        return whole

    async def answer(self, command, reader, writer):
        tag, _, rest = command.partition(b" ")
        verb = rest.split(None, 1)[0].upper() if rest.split() else b""
        if verb == b"CAPABILITY":
            writer.write(b"* CAPABILITY " + CAPABILITY + b"\r\n")
        elif verb == b"AUTHENTICATE":
            if len(rest.split()) == 2:
                writer.write(b"+ \r\n")
                await reader.readline()
            writer.write(tag + b" OK [CAPABILITY " + CAPABILITY + b"] in\r\n")
            return
        elif verb == b"LOGIN":
            writer.write(tag + b" OK [CAPABILITY " + CAPABILITY + b"] in\r\n")
            return
        elif verb in (b"SELECT", b"EXAMINE"):
            writer.write(b"* 1 EXISTS\r\n* OK [UIDVALIDITY 1] .\r\n* FLAGS (\\Seen \\Deleted)\r\n")
        elif b"BODY" in rest.upper() and b"FETCH" in rest.upper():
            await self.message(writer)
        elif verb == b"LOGOUT":
            writer.write(b"* BYE bye\r\n" + tag + b" OK out\r\n")
            return
        writer.write(tag + b" OK done\r\n")

    async def message(self, writer):
        writer.write(b"* 1 FETCH (UID 1 BODY[] {%d}\r\n" % self.size)
        left = self.size
        while left:
            part = BLOCK if left >= len(BLOCK) else BLOCK[:left]
            writer.write(part)
            await writer.drain()
            self.sent += len(part)
            left -= len(part)
        writer.write(b")\r\n")


async def main():
    upstream = Upstream(int(sys.argv[1]))
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"open": upstream.open, "sent": upstream.sent}), flush=True)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
