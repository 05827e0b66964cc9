"""URLs as others write them: which may be fetched, and how they are shown without their secrets.

A URL may hold a password before its host and a signature in its query. `shown_url` is the form for
messages, records, tables and pages; the full one goes to the job that fetches the file only.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

PROTOCOLS = ("https", "http", "s3")
# What a config may add: no protocol that reads local files, or wraps another one. What is in memory
# is of the process itself.
KNOWN_PROTOCOLS = (
    *PROTOCOLS, "gs", "gcs", "abfs", "abfss", "az", "oss", "ftp", "sftp", "ssh", "hdfs", "webhdfs",
    "root", "memory",
)  # fmt: skip
HTTP = ("https", "http")
HIDDEN = "***"
SHORTEST_SECRET = 4  # characters; a shorter one would be replaced in the middle of other words

_URL = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]*(::[A-Za-z][A-Za-z0-9_+.-]*)*://")
# A blank may stand in a password, which somebody wrote as it is
_BLANKS = r"(?:[^\s'\"<>/?#@:]+:(?!\d+\s)[^\s'\"<>/@]+(?:[ \t]+[^\s'\"<>/@]+){1,3}@)?"
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]*://" + _BLANKS + r"[^\s'\"<>]+")
_ONE_SLASH = re.compile(
    r"(?<![A-Za-z0-9+.-])(?P<start>(https?|s3a?|gs|s?ftp):/)(?!/)(?P<rest>"
    + _BLANKS
    + r"[^\s'\"<>]+)",
    re.IGNORECASE,
)
_PARTS = re.compile(r"(?P<url>.*?)(?P<extension>\[[^\[\]]*\])?(?P<end>[.,:;!)}\]]*)", re.DOTALL)
_INNER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USER_IN_PATH = re.compile(r"/[^/:@]+:[^/@]*@")
# RFC 3986, 3.3: a parameter of a part of the path, such as ;jsessionid=...
_PARAMETER = re.compile(r";(?P<name>[^/?#;=\[\]]*)=[^/?#;\[\]]*")
_AUTHORITY = re.compile(r"[^/?#]*")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_BRACKETS = re.compile(r"//([^/?#@]*@)?\[[0-9A-Fa-f:.]+\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_SIGNATURES = re.compile(
    r"x-(amz|goog|ms|oss|cos)-.*|.*(token|secret|signature|password|passwd|credential|api_?key).*"
    r"|sig|sign|key|auth|authorization|pass|pwd|expires|policy|key-pair-id|awsaccesskeyid"
    r"|googleaccessid|.*sessionid|phpsessid|s[eprtvk]|sks|skt|ske|skv|skoid|sktid|spr|sdd|hdnea|hdnts",
    re.IGNORECASE,
)
# Options of a file system that are no secret. All other words among them are hidden.
_PLAIN_OPTIONS = {
    "anon", "endpoint_url", "region_name", "region", "project", "account_name", "profile",
    "requester_pays", "version_aware", "default_block_size", "use_ssl", "signature_version",
    "addressing_style", "user-agent", "accept", "accept-encoding", "accept-language", "referer",
    "proxy", "verify", "account_host", "consistency", "access", "acl", "s3_additional_kwargs",
}  # fmt: skip
_SECRET_OPTION = re.compile(
    r"(?i).*(token|secret|passw|passphrase|credential|authorization|auth|cookie|signature|api_?key"
    r"|account_key|sas|bearer|private).*|key|pass|pwd"
)
ENVIRONMENT = "env"


class UrlError(ValueError):
    """A URL that may not be fetched; the message says why, and what to do."""


class MissingVariable(Exception):
    """An environment variable that the config names is not set; the message says which."""


def is_remote(name: str) -> bool:
    """Whether a file is named by URL.

    Examples
    --------
    >>> is_remote("s3://bucket/image.fits[SCI]"), is_remote("folder/image.fits")
    (True, False)
    """
    return _URL.match(name) is not None


# How a URL is shown


def shown_url(url: str) -> str:
    """Return a URL without what may be secret: user, password, query and fragment.

    What holds no URL comes back as it is.

    Examples
    --------
    >>> shown_url("https://me:secret@host.org/a.fits?X-Amz-Signature=1f[SCI]")
    'https://host.org/a.fits[SCI]'
    """
    start = _URL.match(url)
    if start is None:
        return _without_broken(_IN_TEXT.sub(_shown_match, url))
    parts = _PARTS.fullmatch(url[start.end() :])
    rest, nested = parts["url"], ""
    if inner := _INNER.search(rest):  # as a gateway takes it: https://gateway.org/https://...
        rest, nested = rest[: inner.start()], shown_url(rest[inner.start() :])
        nested = "" if set(rest) & set("?#") else nested  # in a query, which is not shown
    rest = _USER_IN_PATH.sub("/", _path_alone(_without_user(rest)))
    return start[0] + rest + nested + (parts["extension"] or "")


def _path_alone(rest: str) -> str:
    """Leave out the query, the fragment and the parameters of the path."""
    return _PARAMETER.sub("", re.split(r"[?#]", rest, maxsplit=1)[0])


def _without_user(rest: str) -> str:
    """Leave out what stands before the host, also where it is written against the rules."""
    authority = _AUTHORITY.match(rest)[0]
    if "@" in authority:
        return authority.rpartition("@")[2] + rest[len(authority) :]
    host = authority.rpartition("]")[2]
    port = host.partition(":")[2]
    if not port or port.isdecimal():
        return rest
    # A password with `/`, `?` or a blank in it ends the authority too early.
    return rest.rpartition("@")[2] if "@" in rest else HIDDEN


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text with each URL in it as `shown_url` shows it, and without known secrets.

    Parameters
    ----------
    text : str
        A message, maybe of a library.
    secrets : iterable of str
        Words to leave out wherever they stand.
    """
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return _without_broken(_IN_TEXT.sub(_shown_match, text)) if ":/" in text else text


def _shown_match(match: re.Match) -> str:
    parts = _PARTS.fullmatch(match[0])
    return shown_url(parts["url"] + (parts["extension"] or "")) + parts["end"]


def _without_broken(text: str) -> str:
    """Leave the same out of URLs with one slash, as which a path writes them."""
    return _ONE_SLASH.sub(_shown_broken, text) if ":/" in text else text


def _shown_broken(match: re.Match) -> str:
    parts = _PARTS.fullmatch(match["rest"])
    rest = _path_alone(_without_user(parts["url"]))
    return match["start"] + rest + (parts["extension"] or "") + parts["end"]


def secrets_of(url: str) -> list[str]:
    """Return the parts of a URL that must not be shown: user, password and values of the query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return []
    userinfo = parts.netloc.rpartition("@")[0]
    values = [value for _, value in parse_qsl(parts.query)]
    values += [match[0].partition("=")[2] for match in _PARAMETER.finditer(parts.path)]
    words = [userinfo, *userinfo.split(":", 1)[1:], *values, parts.query]
    return [word for word in {*words, *map(unquote, words)} if word]


def has_secrets(url: str) -> bool:
    """Whether a URL holds a password, or a signature, in the places where these stand."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    names += [match["name"] for match in _PARAMETER.finditer(parts.path)]
    return "@" in parts.netloc or any(_SIGNATURES.fullmatch(name) for name in names)


def steady_url(url: str) -> str:
    """Return a URL without user, password and signature, which do not tell files apart."""
    if not is_remote(url) or not set("?#@;") & set(url):
        return url
    address, _, query = url.partition("?")
    parameters = [match[0] for match in _PARAMETER.finditer(address)]
    kept = [
        part
        for part in (*query.split("&"), *(text.removeprefix(";") for text in parameters))
        if part and not _SIGNATURES.fullmatch(part.split("=")[0])
    ]
    return shown_url(address) + ("?" + "&".join(kept) if kept else "")


def url_key(url: str) -> str:
    """Return a name for a URL that holds no secret, and tells one file from another.

    It ends in a digest, if anything is left out of it. The digest does not depend on the signature,
    so that a file that is signed anew is not another file.
    """
    shown = shown_url(url)
    if shown == url:
        return url
    digest = hashlib.blake2b(steady_url(url).encode(), digest_size=6).hexdigest()
    return f"{shown}#{digest}"


class Hidden:
    """A text among the settings of a job that is shown and stored in another form.

    It is not a str, so that whatever Snakemake writes of the settings (metadata, reasons, reports,
    benchmarks, job properties) holds that form. The job gets the text by `revealed`.

    Parameters
    ----------
    value : str
        The text.
    shown : str
        The form to show; equal for equal jobs, as it decides whether a job is done again.
    """

    __slots__ = ("shown", "value")

    def __init__(self, value: str, shown: str):
        self.value = value
        self.shown = shown

    def __repr__(self) -> str:
        return repr(self.shown)

    def __str__(self) -> str:
        return self.shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


def revealed(value: Any) -> Any:
    """Return the settings of a job with each `Hidden` as the text itself."""
    if isinstance(value, Hidden):
        return value.value
    if isinstance(value, Mapping):
        return {key: revealed(each) for key, each in value.items()}
    return [revealed(each) for each in value] if isinstance(value, list | tuple) else value


def concealed(value: Any) -> Any:
    """Return settings of a job in which each URL with a query or a password is `Hidden`.

    The job gets the full URL. Its pickle lies in `.snakemake/scripts` while the job runs, in a file
    that only its owner can read.
    """
    if isinstance(value, str):
        return Hidden(value, url_key(value)) if shown_url(value) != value else value
    if isinstance(value, Mapping):
        return {key: concealed(each) for key, each in value.items()}
    return [concealed(each) for each in value] if isinstance(value, list | tuple) else value


def without_secrets(value: Any) -> Any:
    """Return plain data in which each URL is shown as `shown_url` does, for a record."""
    if isinstance(value, str):
        return shown_url(value)
    if isinstance(value, Mapping):
        return {key: without_secrets(each) for key, each in value.items()}
    return [without_secrets(each) for each in value] if isinstance(value, list | tuple) else value


def steady(value: Any) -> Any:
    """Return plain data in which each URL is as `steady_url` makes it, for a digest."""
    if isinstance(value, str):
        return steady_url(value)
    if isinstance(value, Mapping):
        return {key: steady(each) for key, each in value.items()}
    return [steady(each) for each in value] if isinstance(value, list | tuple) else value


def recorded_config(config: Mapping) -> dict[str, Any]:
    """Return a config for a record: URLs as they are shown, and no literal secret in options."""
    return _with_options(config, without_secrets)


def steady_config(config: Mapping) -> dict[str, Any]:
    """Return a config without what tells who fetches the files, for a digest."""
    return _with_options(config, steady)


def _with_options(config: Mapping, change: Callable[[Any], Any]) -> dict[str, Any]:
    changed = change(config)
    remote = (changed.get("input") or {}).get("remote")
    if remote:
        remote["options"] = recorded_options(hidden_options(config["input"]["remote"]["options"]))
    return changed


def left_out(config: Any, recorded: Any, where: str = "") -> list[str]:
    """Name the keys of a config whose values are not recorded whole."""
    if isinstance(config, Mapping) and isinstance(recorded, Mapping):
        pairs = [(f"{where}.{key}" if where else key, key) for key in config]
        return [k for at, key in pairs for k in left_out(config[key], recorded.get(key), at)]
    return [] if config == recorded else [where]


# Options of file systems


def _is_reference(value: Any) -> bool:
    """Whether an option names an environment variable, as {env: NAME}."""
    return isinstance(value, Mapping) and list(value) == [ENVIRONMENT]


def variables(options: Any) -> Iterator[str]:
    """Name the environment variables that options refer to."""
    if _is_reference(options):
        yield str(options[ENVIRONMENT])
    elif isinstance(options, Mapping | list):
        for each in options.values() if isinstance(options, Mapping) else options:
            yield from variables(each)


def resolved(options: Any) -> Any:
    """Return options with the values of the environment variables that they name.

    Raises
    ------
    MissingVariable
        If one is not set.
    """
    if _is_reference(options):
        name = str(options[ENVIRONMENT])
        if name not in os.environ:
            raise MissingVariable(
                f"input.remote.options: the environment variable {name} is not set on this "
                f"machine; set it (export {name}=...), and let the cluster pass it to its jobs"
            )
        return os.environ[name]
    if isinstance(options, Mapping):
        return {key: resolved(each) for key, each in options.items()}
    return [resolved(each) for each in options] if isinstance(options, list) else options


def hidden_options(options: Any, key: str = "", inside: bool = False) -> Any:
    """Return options in which each literal secret is `Hidden`.

    Every word counts as a secret unless its key is known to hold none; a number does below a key
    whose name says so. References to environment variables stay.
    """
    if _is_reference(options) or options is None or isinstance(options, bool):
        return options
    inside = inside or _SECRET_OPTION.fullmatch(key) is not None
    if isinstance(options, Mapping):
        return {name: hidden_options(each, str(name), inside) for name, each in options.items()}
    if isinstance(options, list | tuple):
        return [hidden_options(each, key, inside) for each in options]
    if isinstance(options, str):
        is_plain = key.lower() in _PLAIN_OPTIONS
        return concealed(options) if is_plain else Hidden(options, HIDDEN)
    return Hidden(options, HIDDEN) if inside else options


def recorded_options(options: Any) -> Any:
    """Return options for a record: a literal secret is written as `***`."""
    if isinstance(options, Hidden):
        return HIDDEN if options.shown == HIDDEN else shown_url(options.value)
    if isinstance(options, Mapping):
        return {name: recorded_options(each) for name, each in options.items()}
    if isinstance(options, list):
        return [recorded_options(each) for each in options]
    return shown_url(options) if isinstance(options, str) else options


def literal_secrets(options: Any, where: str = "input.remote.options") -> Iterator[tuple[str, str]]:
    """Go through the literal secrets of options: where each stands in the config, and its value."""
    hidden = hidden_options(options, where.rpartition(".")[2])
    yield from _hidden_words(hidden, where)


def _hidden_words(options: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(options, Hidden):
        yield where, str(options.value)
    elif isinstance(options, Mapping) and not _is_reference(options):
        for name, each in options.items():
            yield from _hidden_words(each, f"{where}.{name}")
    elif isinstance(options, list):
        for number, each in enumerate(options):
            yield from _hidden_words(each, f"{where}.{number}")


# Which URLs may be fetched


def check_url(
    url: str, protocols: Sequence[str] = PROTOCOLS, hosts: Sequence[str] | None = None
) -> SplitResult:
    """Insist on a URL that the config allows.

    Parameters
    ----------
    url : str
        Without [EXTENSION].
    protocols : sequence of str
        Those that are allowed (the config's `input.remote.protocols`).
    hosts : sequence of str, optional
        Hosts, or buckets of an object store, that are allowed: names, or `*.example.org` for all
        below it; all if not given.

    Returns
    -------
    urllib.parse.SplitResult
        The URL with protocol and host in lower case, the host in ASCII (IDNA).

    Raises
    ------
    UrlError
        If it is of another protocol or host, is chained (`::`), has no host, leads up by `..`, or
        holds a backslash or a control character. The message shows no secret.
    """
    shown = redacted(url)
    parts = _split(url, shown)
    protocol = {"s3a": "s3"}.get(parts.scheme.lower(), parts.scheme.lower())
    _check_protocol(protocol, protocols, shown)
    host = _host(parts, shown)
    if _leads_up(parts.path):
        raise UrlError(f"{shown}: a URL may not lead up by . or ..; write its path without them")
    if hosts and not is_listed(host, hosts):
        raise UrlError(
            f"{shown}: the host {host} is not among input.remote.hosts ({', '.join(hosts)}); add "
            "it there if files may come from it"
        )
    return parts._replace(scheme=protocol, netloc=_netloc(parts, host))


def _split(url: str, shown: str) -> SplitResult:
    """Split a URL, once nothing in it may be read in two ways."""
    if _CONTROL.search(url):
        raise UrlError(
            f"{shown!r}: a URL may not hold a backslash or a control character; write a backslash "
            "as %5C"
        )
    if "::" in _BRACKETS.sub("//", url, count=1):
        raise UrlError(
            f"{shown}: chained URLs (with ::) are not read; give the URL of the file itself, and "
            "unpack archives first"
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UrlError(f"{shown}: is not a valid URL ({redacted(str(error))})") from None
    return parts


def _check_protocol(protocol: str, protocols: Sequence[str], shown: str) -> None:
    if protocol in protocols:
        return
    local = protocol in ("file", "local")
    fix = "write a local file as a path" if local else "or add it there, if fsspec reads it"
    raise UrlError(
        f"{shown}: the protocol {protocol or 'of no name'} is not among input.remote.protocols "
        f"({', '.join(protocols)}); use one of them, {fix}"
    )


def _host(parts: SplitResult, shown: str) -> str:
    """Return the host of a URL in lower-case ASCII, an IPv6 address without its brackets."""
    host = (parts.hostname or "").rstrip(".")
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        pass
    if not (name := ascii_host(host)):
        raise UrlError(
            f"{shown}: {host!r} is not the name of a host; a URL is written protocol://host/path"
        )
    return name


def ascii_host(host: str) -> str:
    """Return a host name in lower-case ASCII; empty if it is no such name."""
    try:
        name = host.lower().encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = host.lower()  # of a bucket, whose name may have an empty label
    return name if _HOST.fullmatch(name) else ""


def _netloc(parts: SplitResult, host: str) -> str:
    user, at, _ = parts.netloc.rpartition("@")
    port = "" if parts.port is None else f":{parts.port}"
    return f"{user}{at}{f'[{host}]' if ':' in host else host}{port}"


def _leads_up(path: str) -> bool:
    """Whether a path has a segment . or .., also where it is written in percents."""
    for _ in range(3):
        if any(part in (".", "..") for part in re.split(r"[/\\]", path)):
            return True
        path = unquote(path)
    return False


def is_listed(host: str, hosts: Sequence[str]) -> bool:
    """Whether a host (ASCII, lower case) is one of a list of names and `*.example.org`."""
    for name in hosts:
        if name.startswith("*.") and host.endswith("." + ascii_host(name[2:])):
            return True
        if host == (ascii_host(name.rstrip(".")) or name.lower().strip("[]")):
            return True
    return False


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet: not of this machine or a private network.

    IPv4 addresses within IPv6 ones (RFC 4291, 6052, 3056) are judged by themselves.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if inner := _inner(found):
        return inner.is_global and not inner.is_multicast
    return found.is_global and not found.is_multicast


def is_link_local(address: str) -> bool:
    """Whether an IP address is of one network segment, where clouds tell machines their secrets."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return (_inner(found) or found).is_link_local


def _inner(found: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if isinstance(found, ipaddress.IPv4Address):
        return None
    if found in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found.ipv4_mapped or found.sixtofour
