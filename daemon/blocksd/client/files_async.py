"""The files that an agent sees beside its blocks, as a resource of the client."""

from blocksd.client.reading_async import look
from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import NotFound
from blocksd.mirror.view import FileView, Page
from blocksd.model.label import parse_agent
from blocksd.model.revision import OPERATOR
from blocksd.protocol.sight import files_in
from blocksd.protocol.wire import TIMEOUT_SECONDS


class AsyncAgentFiles:
    """The text files that an agent sees, of the sources in the settings: their text is in its prompt while they are open."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self, agent_id: str, *, is_open: bool | None = None) -> Page[FileView]:
        """The files, by source and path: all of them, or only those that are open, or closed.

        Raises:
            NotFound: no such agent is known.
        """
        files = files_in(await look(self._transport, parse_agent(agent_id)))
        return Page(tuple(file for file in files if is_open in (None, file.is_open)))

    async def open(
        self,
        agent_id: str,
        file: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> FileView:
        """Open a file (`<source>/<path>`) for an agent, or note that it is used again.

        Raises:
            NotFound: there is no such file, or the agent is not known or does not see it.
        """
        agent = parse_agent(agent_id)
        terms = {"timeout_seconds": timeout_seconds, "request_id": request_id}
        await self._transport.request(OPERATOR, "open_file", {"agent": agent, "file": file}, **terms)
        found = [one for one in await self.list(agent) if one.file == file]
        if not found:
            raise NotFound(f"agent {agent!r} sees no file {file!r} any more", agent=agent, file=file)
        return found[0]

    async def close(
        self,
        agent_id: str,
        file: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> None:
        """Close a file for an agent, if it is open. Raises NotFound when the agent or its source is not known."""
        terms = {"timeout_seconds": timeout_seconds, "request_id": request_id}
        args = {"agent": parse_agent(agent_id), "file": file}
        await self._transport.request(OPERATOR, "close_file", args, **terms)
