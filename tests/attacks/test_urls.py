"""Names that lead elsewhere than a survey means: protocols, hosts, redirects, endless files."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from luneta.config import ConfigError, validate
from luneta.survey import http
from luneta.survey.flags import Flag
from luneta.survey.http import MOST_SESSIONS
from luneta.survey.images import ImageError, read_pixels
from luneta.survey.remote import fetch, local_copy
from luneta.survey.remote_checks import url_problems
from luneta.survey.stamp_index import locate
from luneta.urls import UrlError, check_url, is_public
from web_server import WebServer, redirect, refuse

REMOTE = {"retries": 0, "wait": 0.0, "timeout": 5.0, "options": {}}
CONTENT = b"the content of a file"


@pytest.fixture
def server():
    served = WebServer({"/file": CONTENT})
    served.start()
    yield served
    served.stop()


@pytest.fixture
def other():
    served = WebServer({"/file": CONTENT})
    served.start()
    yield served
    served.stop()


def read(url, **settings):
    with local_copy(url, REMOTE | settings) as path:
        return Path(path).read_bytes()


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "FILE:///etc/hostname",
        "file://localhost/etc/hostname",
        "local:///etc/hostname",
        "memory://a",
        "simplecache::file:///etc/hostname",
        "simplecache::https://host.org/a.fits",
        "filecache::s3://bucket/a.fits",
        "zip://etc/hostname::file:///tmp/a.zip",
        "zip://a.fits::https://host.org/a.zip",
        "https://host.org/a.fits::file:///etc/hostname",
        "http://host.org::80/a",
        "reference://::https://host.org/a.json",
        "reference://a",
        "dir://a",
        "data://text/plain;base64,AAAA",
        "git://a",
        "github://owner:repository@main/a.fits",
        "ftp://host.org/a.fits",
        "gopher://host.org/a",
        "s_3://bucket/a",
        "c://a",
    ],
)
def test_a_protocol_that_is_not_allowed_is_refused_and_nothing_is_read(url):
    with pytest.raises(ImageError, match="protocol|chained") as raised:
        read(url)
    assert raised.value.flag == Flag.UNREADABLE_FILE


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https:///etc/hostname", "is not the name of a host"),
        ("https://?a", "is not the name of a host"),
        ("https://:80/a", "is not the name of a host"),
        ("https://ex%61mple.org/a", "is not the name of a host"),
        ("https://two words.org/a", "is not the name of a host"),
        ("https://host.org:port/a", "valid URL|name of a host"),
        ("https://host.org:99999/a", "is not a valid URL"),
        ("https://[::1/a", "valid URL|chained"),
        ("https://host.org\\@evil.org/a", "backslash"),
        ("https:\\\\host.org/a", None),
        ("https://host.org/a\nb", "control character"),
        ("https://host.org/a\x00b", "control character"),
        ("https://host.org/\tb", "control character"),
        ("https://host.org/a/../../b", "may not lead up"),
        ("https://host.org/a/%2e%2e/b", "may not lead up"),
        ("https://host.org/a/%2E./b", "may not lead up"),
        ("https://host.org/a%2f..%2fb", "may not lead up"),
        ("https://host.org/a/%252e%252e/b", "may not lead up"),
        ("https://host.org/a%5c..%5cb", "may not lead up"),
        ("https://host.org/./b", "may not lead up"),
        ("s3://bucket/../other/b", "may not lead up"),
    ],
)
def test_a_url_that_can_be_read_in_two_ways_is_refused(url, reason):
    if reason is None:
        with local_copy(url, REMOTE) as path:  # not a URL: the name of a local file
            assert path == url
        return
    with pytest.raises(ImageError, match=reason) as raised:
        read(url)
    assert raised.value.flag == Flag.UNREADABLE_FILE


@pytest.mark.parametrize(
    "name", ["https:/host.org/a", "file:/etc/hostname", " https://h/a", "a://"]
)
def test_what_is_almost_a_url_is_not_fetched(name):
    if name == "a://":
        with pytest.raises(ImageError, match="protocol"):
            read(name)
        return
    with local_copy(name, REMOTE) as path:
        assert path == name
    with pytest.raises(ImageError, match="does not exist") as raised:
        read_pixels(name)
    assert ("a URL has two slashes" in str(raised.value)) == (name[0] in "h ")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("HTTPS://Data.Example.ORG/A.fits", "data.example.org"),
        ("https://data.example.org./a", "data.example.org"),
        ("https://data.example.org:8443/a", "data.example.org"),
        ("https://me:word@data.example.org/a", "data.example.org"),
        ("https://ｄａｔａ.example.org/a", "data.example.org"),
        ("https://bücher.example.org/a", "xn--bcher-kva.example.org"),
        ("https://[2001:DB8::1]:80/a", "2001:db8::1"),
    ],
)
def test_a_host_is_told_by_its_name_in_lower_case_ascii(url, host):
    assert check_url(url, hosts=["*.example.org", "2001:db8::1"]).hostname == host


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a",
        "https://data.example.org.evil.net/a",
        "https://evilexample.org/a",
        "https://data.example.org@evil.net/a",
        "https://evil.net/data.example.org",
        "https://evil.net#data.example.org",
        "https://evil.net?.data.example.org",
        "https://.example.org/a",
        "s3://evil-bucket/a",
    ],
)
def test_a_host_that_only_looks_like_one_of_the_list_is_refused(url):
    with pytest.raises(UrlError, match="is not among input.remote.hosts|not the name of a host"):
        check_url(url, hosts=["*.example.org", "my-bucket"])
    assert check_url("s3://my-bucket/a", hosts=["my-bucket"]).netloc == "my-bucket"


def test_a_host_that_is_not_listed_is_not_asked(server):
    with pytest.raises(ImageError, match=r"host 127\.0\.0\.1 is not among input.remote.hosts"):
        read(f"{server.url}/file", hosts=["data.example.org"])
    assert server.requests == []
    assert read(f"{server.url}/file", hosts=["127.0.0.1"]) == CONTENT


def test_a_redirect_on_the_same_host_is_followed(server):
    server.answers["/here"] = redirect("/there")
    server.answers["/there"] = redirect(f"{server.url}/file", 307)
    assert read(f"{server.url}/here") == CONTENT
    assert server.paths() == ["/here", "/there", "/file"]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/hostname", "protocol file is not among"),
        ("ftp://127.0.0.1/a", "protocol ftp is not among"),
        ("s3://bucket/a", "protocol s3 is not among"),
        ("simplecache::http://127.0.0.1/a", "chained|protocol"),
        ("http://127.0.0.1\\@evil.net/", "backslash"),
        ("/../secret", None),
        ("/%2e%2e/secret", "may not lead up"),
        ("http://127.0.0.2:{port}/file", "private network"),
        ("http://localhost:{port}/file", "private network"),
        ("http://2130706433:{port}/file", "canonical"),
        ("http://0x7f.1:{port}/file", "private network"),
        ("http://[::ffff:127.0.0.1]:{port}/file", "private network"),
        ("http://[::1]:{port}/file", "private network"),
        ("http://0.0.0.0:{port}/file", "private network"),
        ("http://169.254.169.254/latest/meta-data", "private network"),
        ("http://10.1.2.3/a", "private network"),
        ("http://192.168.0.1/a", "private network"),
        ("http://[fd00::1]/a", "private network"),
        ("http://[64:ff9b::7f00:1]/a", "private network"),
    ],
)
def test_a_redirect_to_where_no_survey_lies_is_refused(server, location, reason):
    server.answers["/here"] = redirect(location.format(port=server.port))
    with pytest.raises(ImageError, match=reason or "does not exist") as raised:
        read(f"{server.url}/here")
    final = Flag.MISSING_FILE if reason is None else Flag.UNREADABLE_FILE
    assert raised.value.flag == final
    assert "/file" not in server.paths()


def test_a_redirect_to_a_listed_host_is_followed_even_to_a_private_address(server):
    server.answers["/here"] = redirect(f"http://localhost:{server.port}/file")
    assert read(f"{server.url}/here", hosts=["127.0.0.1", "localhost"]) == CONTENT
    with pytest.raises(ImageError, match="host localhost is not among input.remote.hosts"):
        read(f"{server.url}/here", hosts=["127.0.0.1"])


def test_a_server_that_redirects_for_ever_is_given_up(server):
    server.answers["/here"] = redirect("/here")
    with pytest.raises(ImageError, match="redirects more than 10 times") as raised:
        read(f"{server.url}/here", retries=3)
    assert raised.value.flag == Flag.UNREADABLE_FILE
    assert len(server.requests) == 11


def test_a_redirect_without_a_place_is_refused(server):
    server.answers["/here"] = refuse(302)
    with pytest.raises(ImageError, match="does not say where to"):
        read(f"{server.url}/here")


def test_a_url_that_the_config_names_may_lie_on_this_machine_but_not_be_link_local(server):
    assert read(f"http://localhost:{server.port}/file") == CONTENT
    for host in ("169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"):
        with pytest.raises(ImageError, match="list the host in input.remote.hosts"):
            read(f"http://{host}/latest/meta-data")


def test_passwords_and_headers_stay_with_the_server_that_is_named(server, other):
    server.answers["/here"] = redirect(f"{other.url}/file")
    server.answers["/near"] = redirect("/file")
    options = {
        "headers": {"Authorization": "Bearer secret", "X-Key": "secret"},
        "cookies": {"session": "secret"},
        "client_kwargs": {"headers": {"X-Other": "secret"}, "cookies": {"more": "secret"}},
    }
    assert read(f"{server.url}/here", options=options) == CONTENT
    assert "secret" in str(server.requests[0].headers)
    assert "secret" not in str(other.requests[0].headers)
    options = {"auth": ["me", "word"]}
    assert read(f"{server.url}/here", options=options) == CONTENT
    userinfo = server.url.replace("//", "//me:word@")
    assert read(f"{userinfo}/here") == CONTENT
    assert server.requests[-1].headers["Authorization"] == "Basic bWU6d29yZA=="
    assert all("Authorization" not in request.headers for request in other.requests)
    assert read(f"{userinfo}/near") == CONTENT
    assert server.requests[-1].headers["Authorization"] == "Basic bWU6d29yZA=="


def test_a_redirect_cannot_bring_a_password_of_its_own(server):
    server.answers["/here"] = redirect(f"http://me:word@127.0.0.1:{server.port}/file")
    assert read(f"{server.url}/here") == CONTENT


def test_a_file_that_says_it_is_too_large_is_refused_before_it_comes(server):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**12))
        handler.end_headers()

    server.answers["/file"] = answer
    with pytest.raises(ImageError, match=r"1e\+03 GB.*input.remote.most_gigabytes is 20") as raised:
        read(f"{server.url}/file")
    assert raised.value.flag == Flag.UNREADABLE_FILE


def test_a_file_without_an_end_is_cut_off_and_leaves_nothing(server, tmp_path):
    sent = []

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(1000):
                handler.wfile.write(b"\0" * 10**5)
                sent.append(10**5)
        except OSError:
            pass

    server.answers["/file"] = answer
    target = tmp_path / "file"
    with pytest.raises(ImageError, match=r"more than 0.001 GB came") as raised:
        fetch(f"{server.url}/file", str(target), REMOTE | {"most_gigabytes": 0.001})
    assert raised.value.flag == Flag.UNREADABLE_FILE
    assert not target.exists()
    assert sum(sent) < 5 * 10**7


def test_a_server_that_drips_for_ever_is_given_up_in_time(server, tmp_path):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(200):
                handler.wfile.write(b"a")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    server.answers["/file"] = answer
    target, start = tmp_path / "file", time.monotonic()
    settings = REMOTE | {"retries": 5, "most_seconds": 0.5}
    with pytest.raises(ImageError, match="not complete after 0.5 s .input.remote.most_seconds"):
        fetch(f"{server.url}/file", str(target), settings)
    assert time.monotonic() - start < 2
    assert not target.exists()


def test_all_tries_of_a_file_share_one_bound_on_time(server, tmp_path):
    server.answers["/file"] = refuse(503)
    start = time.monotonic()
    settings = REMOTE | {"retries": 20, "wait": 0.2, "most_seconds": 0.5}
    with pytest.raises(ImageError, match="most_seconds") as raised:
        fetch(f"{server.url}/file", str(tmp_path / "file"), settings)
    assert raised.value.flag == Flag.UNAVAILABLE
    assert time.monotonic() - start < 2


def test_a_name_of_any_length_and_kind_is_fetched(server):
    for name in ("a" * 300 + ".fits", "%00.fits", "%2Fetc%2Fpasswd.fits", "a b.fits", "é.fits"):
        server.answers.clear()
        server.answers.update(
            {f"/{name}": CONTENT, "/a%20b.fits": CONTENT, "/%C3%A9.fits": CONTENT}
        )
        with local_copy(f"{server.url}/{name}[SCI]", REMOTE) as path:
            assert path.endswith(".fits[SCI]")
            assert Path(path.removesuffix("[SCI]")).read_bytes() == CONTENT
            assert len(Path(path).parts) == len(Path(path).resolve().parts)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.0.0.1", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("::1", False),
        ("::", False), ("0.0.0.0", False), ("fe80::1%eth0", False), ("fc00::1", False),
        ("::ffff:10.0.0.1", False), ("64:ff9b::a00:1", False), ("2002:a00:1::", False),
        ("224.0.0.1", False), ("100.64.0.1", False), ("255.255.255.255", False),
    ],
)  # fmt: skip
def test_which_addresses_are_of_the_open_internet(address, public):
    assert is_public(address) is public


def stamps(image, names):
    settings = {
        "bands": ["g"], "image": image, "root": None, "table": "stamps.csv", "masks": None,
        "weights": None, "bands_required": None,
    }  # fmt: skip
    return locate(pa.table({"name": names}), settings)


@pytest.mark.parametrize(
    ("image", "good", "bad"),
    [
        ("https://host.org{name}", "/a.fits", "@evil.net/a.fits"),
        ("https://host.org{name}", "/a.fits", ".evil.net/a.fits"),
        ("https://host.org{name}", "/a.fits", ":80@evil.net/a.fits"),
        ("https://host.org{name}", "/a.fits", "%2eevil.net/a.fits"),
        ("https://cdn{name}.host.org/a.fits", "1", "1.evil.net/b?"),
        ("https://cdn{name}.host.org/a.fits", "1", "@evil.net/"),
        ("https://cdn{name}.host.org/a.fits", "1", "@evil.net#"),
        ("https://me:word@host.org{name}", "/a.fits", "@evil.net/a.fits"),
    ],
)
def test_a_row_cannot_lead_away_from_the_host_of_the_config(image, good, bad):
    located = stamps(image, [good, bad])
    assert located.refused[0] is None
    assert "leads away from the host" in located.refused[1]
    assert "word" not in located.refused[1]


def test_a_row_may_name_the_host_where_the_config_leaves_it_to_the_table():
    located = stamps("{name}", ["https://host.org/a.fits", " https://host.org/b.fits\t", "c.fits"])
    assert located.refused == [None] * 3
    assert located.names["image_g"][:2] == ["https://host.org/a.fits", "https://host.org/b.fits"]


INPUT = {"kind": "stamps", "table": "stamps.csv", "image": "{name}.fits", "bands": ["g"]}


def problems(given=None, **remote):
    config = {"survey": "a", "input": {**INPUT, **(given or {}), "remote": remote}}
    return list(url_problems(validate(config).input.model_dump(mode="json")))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("file:///data/{name}.fits", "input.image: file:///data/: the protocol file"),
        ("ftp://host.org/{name}.fits", "protocol ftp"),
        ("simplecache::https://host.org/{name}.fits", "chained"),
        ("https://host.org/../{name}.fits", "may not lead up"),
        ("https://evil.net/{name}.fits", "evil.net is not among input.remote.hosts"),
        ("https://me:word@evil.net/{name}.fits?sig=secret", "evil.net is not among"),
    ],
)
def test_what_the_config_alone_tells_is_refused_at_planning(image, reason):
    found = problems({"image": image}, hosts=["host.org"])
    assert len(found) == 1
    assert reason in found[0]
    assert "word" not in found[0]
    assert "secret" not in found[0]


def test_source_lists_are_checked_at_planning_too():
    given = {"kind": "tiles", "images": "{tile}.fits", "sources": ["a.csv", "local:///b.csv"]}
    given = {"survey": "a", "input": {"bands": ["g"], **given}}
    found = list(url_problems(validate(given).input.model_dump(mode="json")))
    assert found == [
        "input.sources: local:///b.csv: the protocol local is not among input.remote.protocols "
        "(https, http, s3); use one of them, write a local file as a path"
    ]


@pytest.mark.parametrize("protocol", ["file", "local", "simplecache", "zip", "dir", "reference"])
def test_no_config_can_allow_a_protocol_that_reads_local_files(protocol):
    with pytest.raises(ConfigError, match="cannot be allowed: name some of https"):
        problems(protocols=["https", protocol])


@pytest.mark.parametrize("host", ["https://host.org", "host.org/a", "", "*", "a.*.org", "host:80"])
def test_a_list_of_hosts_holds_names_only(host):
    with pytest.raises(ConfigError, match="is not the name of a host"):
        problems(hosts=[host])


@pytest.mark.parametrize("key", ["labels", "table"])
def test_a_local_file_cannot_be_named_by_url(key):
    url = "https://me:word@host.org/a.csv?sig=secret"
    task = {"kind": "binary", "classes": ["a", "b"], "label_column": "c", "labels": url}
    config = {"survey": "a", "input": {**INPUT, "table": url}}
    if key == "labels":
        config = {"survey": "a", "input": INPUT, "tasks": {"lens": task}}
    with pytest.raises(ConfigError, match="must be a local file; fetch it first") as raised:
        validate(config)
    assert "word" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_files_of_one_server_come_over_one_connection():
    served = WebServer({f"/{number}": CONTENT for number in range(5)}, keeps_connections=True)
    served.start()
    try:
        for number in range(5):
            assert read(f"{served.url}/{number}") == CONTENT
        assert served.connections == 1
        assert read(f"{served.url}/1", options={"headers": {"A": "b"}}) == CONTENT
        assert served.requests[-1].headers["A"] == "b"
        assert read(f"{served.url}/1") == CONTENT
        assert "A" not in served.requests[-1].headers
    finally:
        served.stop()


def test_a_server_that_closes_its_connections_is_asked_anew(server):
    for _ in range(3):
        assert read(f"{server.url}/file") == CONTENT
    port = server.port
    server.stop()
    with pytest.raises(ImageError, match="Cannot connect"):
        read(f"{server.url}/file")
    server.start(port)
    assert read(f"{server.url}/file") == CONTENT


def test_a_connection_that_is_in_use_is_not_closed_for_others(server):
    """More settings than sessions are kept; the oldest one still waits for its file."""
    begun = threading.Event()
    go_on = threading.Event()

    def slow(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        begun.set()
        go_on.wait(20)
        handler.wfile.write(CONTENT)

    server.answers["/slow"] = slow
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read, f"{server.url}/slow", timeout=30.0)
        try:
            assert begun.wait(10)
            for number in range(MOST_SESSIONS + 2):
                assert read(f"{server.url}/file", timeout=5.0 + number / 100) == CONTENT
            assert len(http._sessions) <= MOST_SESSIONS
        finally:
            go_on.set()
        assert waiting.result() == CONTENT
