"""What a config alone tells about the URLs that it names: found before any job starts."""

from __future__ import annotations

import os
import string
from collections.abc import Iterator, Mapping

from luneta.survey.images import split_extension
from luneta.survey.remote import is_remote
from luneta.survey.stamp_index import templates
from luneta.urls import (
    ENVIRONMENT,
    UrlError,
    check_url,
    has_secrets,
    literal_secrets,
    shown_url,
    variables,
)
from luneta.wording import few

_MOST_NAMED = 5
_OF_HTTP = ("headers", "cookies", "auth")


def url_problems(given: Mapping) -> Iterator[str]:
    """Find the URLs of a config that may not be fetched, and variables that are not set.

    Parameters
    ----------
    given : mapping
        The config's `input` section, as plain types.

    Yields
    ------
    str
        One line for each problem.
    """
    remote = given["remote"]
    for key, url in config_urls(given):
        try:
            check_url(url, remote["protocols"], remote["hosts"])
        except UrlError as error:
            yield f"{key}: {error}"
    for name in dict.fromkeys(variables(remote["options"])):
        if name not in os.environ:
            yield (
                f"input.remote.options: {{{ENVIRONMENT}: {name}}}: the environment variable {name} "
                f"is not set; set it before the run (export {name}=...)"
            )


def url_remarks(given: Mapping) -> Iterator[str]:
    """List what is allowed about URLs and options, and yet worth knowing."""
    remote = given["remote"]
    options = remote["options"]
    secrets = [key for key, _ in literal_secrets(options)]
    if secrets:
        name = secrets[0].rpartition(".")[2].upper().replace("-", "_")
        yield (
            f"{few(secrets, _MOST_NAMED)}: a secret in the config can be read by "
            "everybody who can read that file. Name an environment variable instead, as in "
            f"{secrets[0].removeprefix('input.remote.')}: {{{ENVIRONMENT}: {name}}}. Records of "
            "the run hold *** in its place"
        )
    for key, url in config_urls(given):
        if has_secrets(url):
            yield (
                f"{key} = {shown_url(url)!r}: the password or signature in this URL is left out of "
                "all records, and can be read by everybody who can read the config"
            )
    is_sent = any(key in part for part in (options, options.get("client_kwargs") or {})
                  for key in _OF_HTTP)  # fmt: skip
    if is_sent and not remote["hosts"]:
        yield (
            "input.remote.options: headers, cookies and passwords are sent to every server that a "
            "table names; list those that they are meant for in input.remote.hosts"
        )


def config_urls(given: Mapping) -> Iterator[tuple[str, str]]:
    """Go through the URLs that a config names: the key, and the URL as far as it is known."""
    sources = given.get("sources")
    for name in [sources] if isinstance(sources, str) else sources or ():
        if is_remote(name):
            yield "input.sources", str(split_extension(name)[0])
    for template in templates(given).values() if given.get("kind") == "stamps" else ():
        if fixed := fixed_start(template.text):
            yield template.key, fixed


def fixed_start(template: str) -> str | None:
    """Return the part of a template before its first field, if it is a URL with a whole host."""
    try:
        start = next(iter(string.Formatter().parse(template)), ("",))[0]
    except ValueError:
        return None  # which another check tells
    _, mark, rest = start.partition("://")
    is_whole = "/" in rest or "{" not in template
    return str(split_extension(start)[0]) if mark and is_remote(start) and is_whole else None
