"""Files of a web server: each redirect is checked before it is followed.

A redirect must stay with the protocols and hosts that the config allows, may not fall from https to
http, and may not lead to a private address of another host unless the config lists that. Headers,
cookies and passwords go to the server that the URL names, and not to another one.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import ipaddress
import json
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlunsplit

from fsspec.asyn import get_loop, sync

from luneta.survey.transfers import Refused, Transfer
from luneta.urls import (
    HTTP,
    PROTOCOLS,
    UrlError,
    check_url,
    is_link_local,
    is_listed,
    is_public,
    shown_url,
)

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

MOST_REDIRECTS = 10
CHUNK = 2**20
REDIRECTS = (301, 302, 303, 307, 308)
MOST_SESSIONS = 32
_sessions: dict[tuple, aiohttp.ClientSession] = {}
_users: Counter[tuple] = Counter()
# Options of fsspec's file system that concern no single file.
_OF_FSSPEC = {
    "simple_links", "block_size", "same_scheme", "size_policy", "cache_type", "cache_options",
    "asynchronous", "loop", "get_client", "skip_instance_cache", "use_listings_cache", "encoded",
    "allow_redirects", "max_redirects",
}  # fmt: skip
# Arguments of aiohttp that tell who asks.
_OF_THE_USER = ("headers", "cookies", "auth", "params")


class HttpError(Exception):
    """What a web server answers instead of a file.

    Attributes
    ----------
    status : int
        Such as 404.
    message : str
        What it means, in the server's words.
    """

    def __init__(self, status: int, message: str | None):
        super().__init__(f"{status} {message or ''}")
        self.status = status
        self.message = message or ""


def download(address: SplitResult, transfer: Transfer, options: Mapping, settings: Mapping) -> None:
    """Fetch a file from a web server.

    Parameters
    ----------
    address : urllib.parse.SplitResult
        As `luneta.urls.check_url` returns it.
    transfer : Transfer
        Where to, and the bounds.
    options : mapping
        Arguments of aiohttp's requests (`headers`, `auth`, ...), and `client_kwargs`.
    settings : mapping
        The config's `input.remote` section.

    Raises
    ------
    HttpError
        If the server answers that it does not send it.
    Refused, TooLong
        If it is redirected to where the config does not allow, too large or too slow.
    OSError, aiohttp.ClientError
        If the transfer fails.
    """
    sync(get_loop(), _download, address, transfer, options, settings)


async def _download(
    address: SplitResult, transfer: Transfer, options: Mapping, settings: Mapping
) -> None:
    limit = asyncio.timeout(max(transfer.seconds_left(), 0.0))
    try:
        async with limit:
            await _follow(address, transfer, options, settings)
    except TimeoutError:
        if limit.expired():
            raise transfer.too_long() from None
        raise


async def _follow(
    address: SplitResult, transfer: Transfer, options: Mapping, settings: Mapping
) -> None:
    """Ask for a file, and go where the server sends us as long as that is allowed."""
    hosts = settings.get("hosts") or ()
    first = address
    for _ in range(MOST_REDIRECTS + 1):
        is_first = _origin(address) == _origin(first)
        guard = _Guard(address.hostname, address.hostname == first.hostname, hosts)
        arguments = _arguments(options, is_first)
        host = first.netloc if is_first else address.netloc.rpartition("@")[2]
        url = _as_sent(address._replace(netloc=host), bool(options.get("encoded")))
        async with (
            _session(guard, arguments.pop("client"), settings["timeout"]) as session,
            session.get(url, allow_redirects=False, **arguments) as response,
        ):
            if response.status not in REDIRECTS:
                await _save(response, transfer)
                return
            address = _next(address, response.headers.get("Location"), settings)
    raise Refused(f"the server redirects more than {MOST_REDIRECTS} times")


def _as_sent(address: SplitResult, is_encoded: bool) -> URL:
    """Return the URL of a request."""
    from yarl import URL

    return URL(urlunsplit(address._replace(fragment="")), encoded=is_encoded)


def _origin(address: SplitResult) -> tuple[str, str | None, int | None]:
    usual = {"http": 80, "https": 443}
    return address.scheme, address.hostname, address.port or usual.get(address.scheme)


def _next(address: SplitResult, location: str | None, settings: Mapping) -> SplitResult:
    """Check where a server redirects to.

    Raises
    ------
    Refused
        If it is not allowed.
    """
    if not location:
        raise Refused("the server redirects, and does not say where to")
    protocols = [p for p in settings.get("protocols") or PROTOCOLS if p in HTTP]
    here = urlunsplit(address._replace(netloc=address.netloc.rpartition("@")[2]))
    try:
        found = check_url(urljoin(here, location), protocols, settings.get("hosts"))
    except (UrlError, ValueError) as error:
        raise Refused(f"the server redirects to {error}") from None
    if (address.scheme, found.scheme) == ("https", "http"):
        raise Refused(
            f"the server redirects from https to {shown_url(urlunsplit(found))}, which anybody on "
            "the way could read and alter"
        )
    return found


class _Guard:
    """Says which addresses a host may have."""

    def __init__(self, host: str, is_named: bool, hosts: Sequence[str]):
        self.host = host
        self.rule = (host, is_named, is_listed(host, hosts))

    def check(self, host: str, address: str) -> None:
        """Refuse an address of the host; those of a proxy are not its matter.

        Raises
        ------
        Refused
            If it is private or of the network segment, unless the config lists the host, or names
            it as one with a private address.
        """
        _, is_named, is_free = self.rule
        if host.strip("[]") != self.host or is_free:
            return
        if is_link_local(address) or not (is_named or is_public(address)):
            raise Refused(
                f"{self.host} has the address {address}, which is of this machine or a private "
                "network; list the host in input.remote.hosts if files may come from there"
            )


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _arguments(options: Mapping, is_first: bool) -> dict[str, Any]:
    """Return the arguments of a request; `client` are those of its session.

    Another server than the one that the URL names does not learn who asks.
    """
    given = {key: value for key, value in options.items() if key not in _OF_FSSPEC}
    client = dict(given.pop("client_kwargs", {}))
    for part in (given, client):
        for key in _OF_THE_USER if not is_first else ():
            part.pop(key, None)
    headers = {"Accept-Encoding": "identity", **given.pop("headers", {})}
    if user := client.pop("auth", None) or given.pop("auth", None):
        headers["Authorization"] = _basic(user)
    cookies = {**client.pop("cookies", {}), **given.pop("cookies", {})}
    return {**given, "headers": headers, "cookies": cookies, "client": client}


def _basic(user: Sequence[str]) -> str:
    """Return the header of a name and a password (RFC 7617)."""
    name, password = user
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@asynccontextmanager
async def _session(
    guard: _Guard, client: Mapping, seconds: float
) -> AsyncIterator[aiohttp.ClientSession]:
    """Lend a session for a host; the same one for its next file, which spares a handshake.

    Of more than 32, those that were not used for the longest time are closed, none that is in use.
    """
    if _literal(guard.host):
        guard.check(guard.host, guard.host)
    # A process that was forked has a loop of its own, and cannot use those of its parent.
    key = (os.getpid(), *guard.rule, seconds, _identity(client))
    session = _sessions.pop(key, None) or _new_session(guard, client, seconds)
    _sessions[key] = session  # the last one now
    _users[key] += 1
    try:
        for old in _idle()[: max(len(_sessions) - MOST_SESSIONS, 0)]:
            await _sessions.pop(old).close()
        yield session
    finally:
        _users[key] -= 1


def _idle() -> list[tuple]:
    """Keys of the sessions of this process that are not in use, the oldest first."""
    return [key for key in _sessions if key[0] == os.getpid() and not _users[key]]


def _identity(client: Mapping) -> str:
    """Return a text that tells apart the arguments of sessions, secrets included."""
    return json.dumps(client, sort_keys=True, default=str)


def _new_session(guard: _Guard, client: Mapping, seconds: float) -> aiohttp.ClientSession:
    import aiohttp  # slow to import, and jobs on local files do without
    from aiohttp.resolver import ThreadedResolver

    class Resolver(ThreadedResolver):
        """Looks up a host, and takes no address that the guard refuses."""

        async def resolve(self, host, port=0, family=socket.AF_INET):
            found = await super().resolve(host, port, family)
            for each in found:
                guard.check(host, each["host"])
            return found

    silence = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
    connector = aiohttp.TCPConnector(resolver=Resolver(), use_dns_cache=False)
    return aiohttp.ClientSession(**{"timeout": silence, "connector": connector, **client})


def _close_sessions() -> None:
    """Close the connections of this process; aiohttp complains of those that are left."""
    own = [session for key, session in _sessions.items() if key[0] == os.getpid()]

    async def close() -> None:
        for session in own:
            await session.close()

    if own:
        sync(get_loop(), close, timeout=1)


atexit.register(_close_sessions)


async def _save(response: aiohttp.ClientResponse, transfer: Transfer) -> None:
    """Write what comes to the file, and count it."""
    if response.status >= 300:
        raise HttpError(response.status, response.reason)
    transfer.set_size(response.content_length)
    with open(transfer.target, "wb") as file:  # noqa: PTH123, ASYNC230 (nothing else waits)
        async for chunk in response.content.iter_chunked(CHUNK):
            file.write(chunk)
            transfer.relative_update(len(chunk))
