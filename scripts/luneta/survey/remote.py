"""Files named by URL: fetched to a temporary file, with bounded retries."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec

from luneta.survey.fits_headers import ImageError
from luneta.survey.flags import Flag
from luneta.survey.images import split_extension

_URL = re.compile(r"[A-Za-z][\w+.-]*(::[A-Za-z][\w+.-]*)*://")
_HTTP = ("http", "https")
_S3 = ("s3", "s3a")
_WORTH_ANOTHER_TRY = (408, 425, 429)

log = logging.getLogger(__name__)


def is_remote(name: str) -> bool:
    """Whether a file is named by URL.

    Examples
    --------
    >>> is_remote("s3://bucket/image.fits[SCI]"), is_remote("folder/image.fits")
    (True, False)
    """
    return _URL.match(name) is not None


@contextlib.contextmanager
def local_copies(names: Iterable[str | None], settings: Mapping) -> Iterator[list[str | None]]:
    """Give local names for files, of which some may be named by URL, for as long as it is open.

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
        fetched file, is passed on with the URL in place of the temporary name.
    """
    names = list(names)
    urls = dict.fromkeys(_url_of(name) for name in names if name and is_remote(name))
    if not urls:
        yield names
        return
    with tempfile.TemporaryDirectory(prefix="luneta_") as folder:
        paths = {}
        for number, url in enumerate(urls):
            paths[url] = str(Path(folder, f"{number}_{PurePosixPath(urlsplit(url).path).name}"))
            fetch(url, paths[url], settings)
        try:
            yield [_renamed(name, paths) for name in names]
        except ImageError as error:
            raise _with_urls(error, paths) from None


def local_copy(name: str, settings: Mapping) -> contextlib.AbstractContextManager[str]:
    """Give a local name for one file, like `local_copies`."""

    @contextlib.contextmanager
    def copied():
        with local_copies([name], settings) as (local,):
            yield local

    return copied()


@contextlib.contextmanager
def localised(files: Any, settings: Mapping) -> Iterator[Any]:
    """Give the files of a band (a BandFiles) with local names, like `local_copies`."""
    fields = ("image", "mask", "weight")
    with local_copies([getattr(files, field) for field in fields], settings) as names:
        yield dataclasses.replace(files, **dict(zip(fields, names, strict=True)))


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
        reason = reason.replace(local, url)
        path = url if path == local else path
    return ImageError(error.flag, reason, path)


def fetch(url: str, target: str, settings: Mapping) -> None:
    """Copy a remote file to a local one, trying again where that may help.

    Parameters
    ----------
    url : str
        Of any protocol that fsspec knows.
    target : str
        Local path.
    settings : mapping
        The config's `input.remote` section. `timeout` is kept by http, https and s3; other
        protocols wait as long as theirs do.

    Raises
    ------
    ImageError
        MISSING_FILE if it does not exist; UNREADABLE_FILE if it is refused, or if all tries failed.
    """
    tries = settings["retries"] + 1
    for attempt in range(tries):
        try:
            _transfer(url, target, settings)
            return
        except FileNotFoundError:
            raise ImageError(Flag.MISSING_FILE, f"{url} does not exist", url) from None
        except Exception as error:  # each protocol has errors of its own
            if _is_final(error):
                reason = f"{url} cannot be fetched: {_describe(error, settings)}"
                raise ImageError(Flag.UNREADABLE_FILE, reason, url) from None
            last = _describe(error, settings)
        log.warning("%s: try %d of %d failed: %s", url, attempt + 1, tries, last)
        if attempt + 1 < tries:
            time.sleep(settings["wait"] * 2**attempt)
    reason = f"{url} could not be fetched in {tries} tries; the last failed with: {last}"
    raise ImageError(Flag.UNREADABLE_FILE, reason, url)


def _transfer(url: str, target: str, settings: Mapping) -> None:
    protocol = url.split("://")[0]
    options = dict(settings["options"])
    for key, value in _timeouts(protocol, settings["timeout"]).items():
        options[key] = {**value, **options.get(key, {})}
    system, path = fsspec.core.url_to_fs(url, **options)
    if protocol in _S3:
        system.retries = 1  # else its own tries multiply with ours
    system.get_file(path, target)
    if protocol in _HTTP:
        return  # aiohttp compares the length itself, also where the transfer is compressed
    promised, there = system.info(path).get("size"), Path(target).stat().st_size
    if promised is not None and promised != there:
        raise OSError(f"{there:,} of {promised:,} bytes came")


def _timeouts(protocol: str, seconds: float) -> dict:
    """Options that make a file system give up a silent server."""
    if protocol in _HTTP:
        import aiohttp  # slow to import, and jobs on local files do without

        silence = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
        return {"client_kwargs": {"timeout": silence}}
    if protocol in _S3:
        times = {"connect_timeout": seconds, "read_timeout": seconds}
        return {"config_kwargs": {**times, "retries": {"total_max_attempts": 1}}}
    return {}


def _is_final(error: Exception) -> bool:
    """Whether another try would fail in the same way: refused, or not understood."""
    if isinstance(error, (PermissionError, ImportError, TypeError, ValueError)):
        return not isinstance(error, UnicodeError)
    status = getattr(error, "status", None)
    return status is not None and 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY


def _describe(error: Exception, settings: Mapping) -> str:
    if isinstance(error, TimeoutError):
        return f"the server was silent for {settings['timeout']:g} s (input.remote.timeout)"
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    if status:
        return f"the server answered {status} {message}"
    return " ".join(str(error).split())[:300] or type(error).__name__
