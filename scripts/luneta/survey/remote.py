"""Files named by URL: fetched to a temporary file, within bounds of tries, time and bytes.

Errors are of two kinds. What another run may find otherwise (a server that is away or slow, a name
that is not resolved) is UNAVAILABLE; what the server has decided, or the config forbids, is final.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import fsspec
from fsspec.asyn import AsyncFileSystem

from luneta.faults import NoRoom, is_full
from luneta.survey.fits_headers import ImageError
from luneta.survey.flags import Flag
from luneta.survey.http import download
from luneta.survey.images import split_extension
from luneta.survey.transfers import Refused, TooLong, Transfer
from luneta.urls import (
    HTTP,
    PROTOCOLS,
    UrlError,
    check_url,
    has_secrets,
    is_remote,
    literal_secrets,
    redacted,
    resolved,
    secrets_of,
    shown_url,
)

__all__ = ["fetch", "is_remote", "local_copies", "local_copy", "localised", "under_given_names"]

GIGABYTE = 10**9
MOST_GIGABYTES = 20.0
MOST_SECONDS = 3600.0

_WORTH_ANOTHER_TRY = (408, 425, 429)
_NO_SUCH_FILE = (404, 410)
_NOT_ALLOWED = (401, 403, 407)
_LONGEST_NAME = 80

log = logging.getLogger(__name__)


@contextlib.contextmanager
def local_copies(names: Iterable[str | None], settings: Mapping) -> Iterator[list[str | None]]:
    """Return local names for files, of which some may be named by URL, for as long as it is open.

    Parameters
    ----------
    names : iterable of str or None
        Paths and URLs, each maybe with [EXTENSION]. A URL that occurs twice is fetched once.
    settings : mapping
        The config's `input.remote` section: retries, wait, timeout, options.

    Yields
    ------
    list of str or None
        Names to read, in the same order: local ones untouched, others of a temporary file
        (with their [EXTENSION]) that is removed at the end.

    Raises
    ------
    ImageError
        If a file does not exist or cannot be fetched. One raised by the block within, over a
        fetched file, is passed on with the URL, as `shown_url` shows it, in place of the temporary
        name.
    luneta.faults.NoRoom
        If the folder of temporary files cannot take the file.
    """
    names = list(names)
    urls = dict.fromkeys(_url_of(name) for name in names if name and is_remote(name))
    if not urls:
        yield names
        return
    with _temporary_folder() as folder:
        paths = {}
        for number, url in enumerate(urls):
            paths[url] = str(Path(folder, f"{number}_{_file_name(url)}"))
            fetch(url, paths[url], settings)
        try:
            yield [_renamed(name, paths) for name in names]
        except ImageError as error:
            raise _with_urls(error, paths) from None


def local_copy(name: str, settings: Mapping) -> contextlib.AbstractContextManager[str]:
    """Yield a local name for one file, like `local_copies`."""

    @contextlib.contextmanager
    def copied():
        with local_copies([name], settings) as (local,):
            yield local

    return copied()


@contextlib.contextmanager
def localised(files: Any, settings: Mapping) -> Iterator[Any]:
    """Yield the files of a band (a BandFiles) with local names, like `local_copies`."""
    fields = ("image", "mask", "weight")
    with local_copies([getattr(files, field) for field in fields], settings) as names:
        yield dataclasses.replace(files, **dict(zip(fields, names, strict=True)))


def under_given_names(text: str, local: Any, given: Any) -> str:
    """Return a text about the files of a band (BandFiles) with the names that the survey gives."""
    for kind in ("image", "mask", "weight"):
        names = getattr(local, kind), getattr(given, kind)
        if names[0] != names[1] and None not in names:
            copy, url = (str(split_extension(name)[0]) for name in names)
            text = text.replace(copy, shown_url(url))
    return text


def _temporary_folder() -> tempfile.TemporaryDirectory:
    try:
        return tempfile.TemporaryDirectory(prefix="luneta_")
    except OSError as error:
        raise NoRoom(error, tempfile.tempdir or "the folder of temporary files") from None


def _file_name(url: str) -> str:
    """Name for the copy of a file, whose end tells the format."""
    try:
        name = PurePosixPath(urlsplit(url).path).name
    except ValueError:
        name = ""
    return re.sub(r"[^\w.+-]", "_", unquote(name), flags=re.ASCII)[-_LONGEST_NAME:]


def _url_of(name: str) -> str:
    return str(split_extension(name)[0])


def _renamed(name: str | None, paths: Mapping[str, str]) -> str | None:
    if not name or not is_remote(name):
        return name
    url = _url_of(name)
    return paths[url] + name[len(url) :]


def _with_urls(error: ImageError, paths: Mapping[str, str]) -> ImageError:
    reason, path = str(error), error.path
    for url, local in paths.items():
        reason = reason.replace(local, shown_url(url))
        path = shown_url(url) if path == local else path
    return ImageError(error.flag, reason, path)


@dataclass(frozen=True)
class _Source:
    """A file on a server that the config allows.

    Attributes
    ----------
    address : urllib.parse.SplitResult
        Where it is, as `luneta.urls.check_url` returns it.
    shown : str
        Its URL without secrets.
    options : mapping
        Of its file system, environment variables resolved.
    secrets : tuple of str
        Words that no message may hold.
    """

    address: SplitResult
    shown: str
    options: Mapping
    secrets: tuple[str, ...]

    @property
    def has_credentials(self) -> bool:
        """Whether anything is sent that tells who asks."""
        return bool(self.secrets)


def _source(url: str, settings: Mapping) -> _Source:
    """Check a URL and look up the options for it.

    Raises
    ------
    ImageError
        If the config does not allow it.
    luneta.urls.MissingVariable
        If an environment variable that the config names is not set.
    """
    given = settings["options"]
    options = resolved(given)
    shown = shown_url(url)
    protocols = settings.get("protocols") or PROTOCOLS
    try:
        address = check_url(url, protocols, settings.get("hosts"))
    except UrlError as error:
        raise ImageError(Flag.UNREADABLE_FILE, str(error), shown) from None
    words = [word for _, word in literal_secrets(options)] if given else []
    words += secrets_of(url) if has_secrets(url) else []
    return _Source(address, shown, options, tuple(words))


def fetch(url: str, target: str, settings: Mapping) -> None:
    """Copy a remote file to a local one, trying again where that may help.

    Parameters
    ----------
    url : str
        Of one of the protocols that the config allows.
    target : str
        Local path; nothing is left there if the file cannot be fetched.
    settings : mapping
        The config's `input.remote` section.

    Raises
    ------
    ImageError
        MISSING_FILE if it does not exist; UNREADABLE_FILE if the config or the server refuses it,
        or it is too large; UNAVAILABLE if all tries failed, or took too long.
    luneta.faults.NoRoom
        If the disk of the local file is full: all other files would fail likewise.
    """
    source = _source(url, settings)
    transfer = Transfer(
        target,
        int(settings.get("most_gigabytes", MOST_GIGABYTES) * GIGABYTE),
        time.monotonic() + settings.get("most_seconds", MOST_SECONDS),
    )
    try:
        _try(source, transfer, settings)
    except BaseException:
        Path(target).unlink(missing_ok=True)
        raise


def _try(source: _Source, transfer: Transfer, settings: Mapping) -> None:
    tries = settings["retries"] + 1
    for attempt in range(tries):
        try:
            _transfer(source, transfer, settings)
            return
        except Exception as error:  # each protocol has errors of its own
            last = _judged(error, source, settings)
        log.warning("%s: try %d of %d failed: %s", source.shown, attempt + 1, tries, last)
        if attempt + 1 < tries:
            time.sleep(max(0.0, min(settings["wait"] * 2**attempt, transfer.seconds_left())))
    reason = f"{source.shown} could not be fetched in {tries} tries; the last failed with: {last}"
    raise ImageError(Flag.UNAVAILABLE, reason, source.shown)


def _judged(error: Exception, source: _Source, settings: Mapping) -> str:
    """Describe an error after which another try may help; raise any other.

    Raises
    ------
    ImageError
        If another try would fail in the same way.
    luneta.faults.NoRoom
        If the local disk is full.
    """
    if isinstance(error, NoRoom):
        raise error
    if isinstance(error, OSError) and is_full(error):
        raise NoRoom(error, tempfile.gettempdir()) from None
    shown, status = source.shown, getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in _NO_SUCH_FILE:
        raise ImageError(Flag.MISSING_FILE, f"{shown} does not exist", shown) from None
    reason = _describe(error, source, settings)
    is_denied = isinstance(error, PermissionError) or status in _NOT_ALLOWED
    if isinstance(error, TooLong) or (is_denied and source.has_credentials):
        # A password or a signature may be renewed before the next run.
        raise ImageError(Flag.UNAVAILABLE, f"{shown} cannot be fetched: {reason}", shown) from None
    if _is_final(error):
        reason = f"{shown} cannot be fetched: {reason}"
        raise ImageError(Flag.UNREADABLE_FILE, reason, shown) from None
    return reason


def _transfer(source: _Source, transfer: Transfer, settings: Mapping) -> None:
    transfer.start()
    if source.address.scheme in HTTP:
        download(source.address, transfer, source.options, settings)
        return
    options = dict(source.options)
    protocol = source.address.scheme
    for key, value in _timeouts(protocol, settings["timeout"]).items():
        options[key] = {**value, **options.get(key, {})}
    system, path = fsspec.core.url_to_fs(urlunsplit(source.address), **options)
    if protocol == "s3":
        system.retries = 1  # else its own tries multiply with ours
    waits = isinstance(system, AsyncFileSystem)
    limit = {"timeout": transfer.seconds_left()} if waits else {}
    try:
        system.get_file(path, transfer.target, callback=transfer, **limit)
    except fsspec.FSTimeoutError:
        transfer.check()
        raise
    promised = system.info(path).get("size")
    there = Path(transfer.target).stat().st_size
    if promised is not None and promised != there:
        raise OSError(f"{there:,} of {promised:,} bytes came")


def _timeouts(protocol: str, seconds: float) -> dict:
    """Return options that make a file system give up a silent server."""
    if protocol == "s3":
        times = {"connect_timeout": seconds, "read_timeout": seconds}
        return {"config_kwargs": {**times, "retries": {"total_max_attempts": 1}}}
    return {}


def _is_final(error: Exception) -> bool:
    """Whether another try would fail in the same way: refused, or not understood."""
    if isinstance(error, Refused):
        return True
    if isinstance(error, ValueError) and isinstance(error, OSError):
        return False  # a certificate that is out of date
    if isinstance(error, (PermissionError, ImportError, TypeError, ValueError)):
        return not isinstance(error, UnicodeError)
    status = getattr(error, "status", None)
    return status is not None and 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY


def _describe(error: Exception, source: _Source, settings: Mapping) -> str:
    """Say what went wrong, without secrets."""
    if isinstance(error, TimeoutError):
        return f"the server was silent for {settings['timeout']:g} s (input.remote.timeout)"
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    text = f"the server answered {status} {message}" if status else " ".join(str(error).split())
    text = redacted(text, source.secrets)
    return text[:300] if text else type(error).__name__
