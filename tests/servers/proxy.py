"""A TCP proxy with faults: it stands between a client and a server, and fails as the network does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self

from servers.common import HOST

CHUNK = 65_536


class FaultProxy:
    """A proxy in a thread of its own, so that blocking and asynchronous clients can go through it.

    Every method but `latency` and `lose_replies` takes effect on open connections before it returns.

    Args:
        port: of the server behind, on loopback.
    """

    def __init__(self, port: int) -> None:
        self.host = HOST
        self.port = 0
        self._behind = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._flowing = asyncio.Event()
        self._refusing = False
        self._losing = False
        self._delay = 0.0
        self._left: int | None = None

    # --- the faults ----------------------------------------------------------------------------------

    def latency(self, seconds: float) -> None:
        """Hold up every chunk for so long, both ways."""
        self._delay = seconds

    def cut(self) -> None:
        """Reset every open connection; new ones are let through."""
        self._in_loop(self._abort_all)

    def refuse(self) -> None:
        """Reset every open connection, and each new one as soon as it comes."""
        self._refusing = True
        self.cut()

    def black_hole(self) -> None:
        """Accept everything and answer nothing, with all connections open."""
        self._in_loop(self._flowing.clear)

    def lose_replies(self) -> None:
        """Let requests reach the server, and lose what it answers."""
        self._losing = True

    def cut_replies_after(self, count: int) -> None:
        """Let so many more bytes of answers through, then reset that connection in the middle of a reply."""
        self._left = count

    def heal(self) -> None:
        """End every fault. What was held up flows on; what was lost or cut stays so."""
        self._delay, self._refusing, self._losing, self._left = 0.0, False, False, None
        self._in_loop(self._flowing.set)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    # --- from start to stop --------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        self.heal()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _in_loop(self, change: Callable[[], None]) -> None:
        async def make() -> None:
            change()

        self._run(make())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._abort_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for _ in range(3):  # what was aborted is closed in a later turn of the loop
            await asyncio.sleep(0)

    def _abort_all(self) -> None:
        for writers in self._open.values():
            for writer in writers:
                writer.transport.abort()

    # --- one connection ------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._behind)
        except (OSError, asyncio.CancelledError):  # nobody there, or the proxy closes
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = (writer, far_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer, (writer, far_writer), replies=False))
                both.create_task(self._pump(far_reader, writer, (writer, far_writer), replies=True))
        except asyncio.CancelledError:
            pass  # the proxy closes
        finally:
            writer.transport.abort()
            far_writer.transport.abort()
            self._open.pop(task)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, ...],
        *,
        replies: bool,
    ) -> None:
        with suppress(ConnectionError):  # one end is gone, so the other goes too
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                if self._losing and replies:
                    continue
                if self._delay:
                    await asyncio.sleep(self._delay)
                if replies and self._left is not None:
                    data, self._left = data[: self._left], self._left - len(data)
                writer.write(data)
                await writer.drain()
                if self._left is not None and self._left <= 0:
                    self._left = None
                    break
        for end in both:
            end.transport.abort()
