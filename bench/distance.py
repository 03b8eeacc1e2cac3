#!/usr/bin/env python3
"""distance.py - a store far away: passes connections on to a port of this machine, and every byte comes late.

    distance.py LISTEN TO MILLISECONDS

The time is that of a round trip; half of it is lost each way, and a whole one before the first byte of a connection. Of a connection at
most 4 MiB are on their way in each direction, which is what Linux lets a socket hold (`tcp_wmem`): 80 MB/s at 50 ms. There is no loss, and
no slow start.
"""

import asyncio
import collections
import sys

PIECE, ON_THE_WAY = 256 << 10, 4 << 20


async def carry(reader, writer, seconds, begins):
    """Passes on what comes, each piece so much later, until the end."""
    loop = asyncio.get_running_loop()
    pieces, changed, waiting = collections.deque(), asyncio.Condition(), 0

    async def take():
        nonlocal waiting
        data = b"-"
        while data:
            try:
                data = await reader.read(PIECE)
            except OSError:
                data = b""
            async with changed:
                pieces.append((max(loop.time(), begins) + seconds, data))
                waiting += len(data)
                changed.notify_all()
                await changed.wait_for(lambda: waiting < ON_THE_WAY)

    async def give():
        nonlocal waiting
        while True:
            async with changed:
                await changed.wait_for(lambda: pieces)
                due, data = pieces.popleft()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
            async with changed:
                waiting -= len(data)
                changed.notify_all()
        if writer.can_write_eof():
            writer.write_eof()

    taking = asyncio.create_task(take())
    try:
        await give()
    except OSError:
        pass
    finally:
        taking.cancel()


async def serve(listen, port, milliseconds):
    one_way = milliseconds / 2000

    async def connected(reader, writer):
        # The connection stands after a round trip.
        begins = asyncio.get_running_loop().time() + 2 * one_way
        there, back = await asyncio.open_connection("127.0.0.1", port, limit=ON_THE_WAY)
        await asyncio.gather(carry(reader, back, one_way, begins), carry(there, writer, one_way, begins))
        for end in (writer, back):
            end.close()

    server = await asyncio.start_server(connected, "127.0.0.1", listen, limit=ON_THE_WAY)
    await server.serve_forever()


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    listen, port, milliseconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    asyncio.run(serve(listen, port, milliseconds))


if __name__ == "__main__":
    main()
