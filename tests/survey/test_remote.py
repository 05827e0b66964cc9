import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fits_files import write_image
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, read_pixels
from luneta.survey.remote import is_remote, local_copies, local_copy, localised
from luneta.survey.sources import read_list
from luneta.survey.tables import TableError
from luneta.survey.tiles import BandFiles

SETTINGS = {"retries": 2, "wait": 0.01, "timeout": 5.0, "options": {}}


class Server:
    """A web server on loopback that fails as told: `plan` holds what it does with each GET."""

    def __init__(self, content: bytes):
        self.content, self.plan, self.requests = content, [], []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, handler) -> None:
        self.requests.append(handler.path)
        action = self.plan.pop(0) if len(self.plan) > 1 else (self.plan or ["good"])[0]
        if isinstance(action, int):
            handler.send_error(action)
            return
        if action == "silent":
            time.sleep(1.5)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.content)))
        handler.send_header("Last-Modified", "Mon, 23 Nov 2026 10:00:00 GMT")
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        half = len(self.content) // 2
        handler.wfile.write(self.content[:half] if action == "break" else self.content)
        handler.close_connection = True


@pytest.fixture
def pixels():
    return np.random.default_rng(2).normal(10, 3, (120, 90)).astype(np.float32)


@pytest.fixture
def server(tmp_path, pixels):
    write_image(tmp_path / "origin.fits", pixels, compressed=False)
    served = Server((tmp_path / "origin.fits").read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.answer(self)

        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(served.content)))
            self.send_header("Last-Modified", "Mon, 23 Nov 2026 10:00:00 GMT")
            self.send_header("ETag", '"1"')
            self.end_headers()

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.port = httpd.server_address[1]
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield served
    httpd.shutdown()
    httpd.server_close()


def fetched(name, settings=SETTINGS):
    with local_copy(name, settings) as local:
        return read_pixels(local)


def test_names_that_are_remote():
    urls = ("https://a/b.fits", "s3://b/k.fits[1]", "gs://b/k", "simplecache::s3://b/k")
    assert all(is_remote(n) for n in urls)
    assert not any(is_remote(n) for n in ("a/b.fits", "/a//b.fits", "b.fits[SCI]", "c:/d"))


def test_a_local_name_passes_untouched():
    names = ["a/b.fits[SCI]", None]
    with local_copies(names, SETTINGS) as local:
        assert local == names


def test_a_file_is_fetched_whole_and_its_copy_removed(server, pixels):
    with local_copy(f"{server.url}/some/image.fits[IMAGE]", SETTINGS) as local:
        path = Path(local.removesuffix("[IMAGE]"))
        assert path.read_bytes() == server.content
        assert path.suffix == ".fits"
        assert np.array_equal(read_pixels(local), pixels)
    assert not path.exists()


def test_the_files_of_a_band_each_come_once(server):
    url = f"{server.url}/tile.fits"
    files = BandFiles(f"{url}[IMAGE]", "mask.fits", f"{url}[1]", plane=3)
    with localised(files, SETTINGS) as local:
        assert local.image.removesuffix("[IMAGE]") == local.weight.removesuffix("[1]")
        assert (local.mask, local.plane) == ("mask.fits", 3)
    assert server.requests == ["/tile.fits"]


@pytest.mark.parametrize("failure", ["break", 503, 429])
def test_a_transfer_that_fails_twice_is_tried_a_third_time(server, pixels, failure):
    server.plan = [failure, failure, "good"]
    assert np.array_equal(fetched(f"{server.url}/image.fits"), pixels)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("failure", "reason"), [("break", "not enough data|payload|Content"), (503, "answered 503")]
)
def test_tries_are_bounded_and_the_last_failure_is_told(server, failure, reason):
    server.plan = [failure]
    url = f"{server.url}/image.fits"
    with pytest.raises(ImageError, match=f"(?i){url} .*in 3 tries; .*({reason})") as raised:
        fetched(url)
    assert (raised.value.flag, raised.value.path) == (Flag.UNAVAILABLE, url)
    assert len(server.requests) == 3


def test_a_silent_server_is_given_up(server):
    server.plan = ["silent"]
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"in 2 tries.*silent for 0\.2 s"):
        fetched(f"{server.url}/image.fits", {**SETTINGS, "retries": 1, "timeout": 0.2})
    assert time.monotonic() - start < 1.4


def test_waits_are_doubled(server):
    server.plan = [503, 503, 503, "good"]
    start = time.monotonic()
    fetched(f"{server.url}/image.fits", {**SETTINGS, "retries": 3, "wait": 0.1})
    assert time.monotonic() - start >= 0.1 + 0.2 + 0.4


def test_a_file_that_does_not_exist_is_missing_without_another_try(server):
    server.plan = [404]
    with pytest.raises(ImageError, match="image.fits does not exist") as raised:
        fetched(f"{server.url}/image.fits")
    assert raised.value.flag == Flag.MISSING_FILE
    assert len(server.requests) == 1


def test_a_refusal_is_final(server):
    server.plan = [403]
    with pytest.raises(ImageError, match="cannot be fetched: the server answered 403"):
        fetched(f"{server.url}/image.fits")
    assert len(server.requests) == 1


def test_nobody_at_the_address(server):
    with pytest.raises(ImageError, match="in 3 tries") as raised:
        fetched("http://127.0.0.1:9/image.fits")
    assert raised.value.flag == Flag.UNAVAILABLE


def test_an_unknown_protocol_is_named():
    with pytest.raises(ImageError, match="carrier-pigeon"):
        fetched("carrier-pigeon://coop/image.fits")


def test_an_error_over_the_copy_names_the_url(server):
    server.content = b"<html>log in first</html>"
    url = f"{server.url}/image.fits"
    with pytest.raises(ImageError, match=f"^{url} is a web page") as raised:
        fetched(url)
    assert raised.value.path == url


@pytest.fixture
def bucket(server, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    endpoint = {"endpoint_url": server.url}
    options = {"anon": True, "client_kwargs": endpoint, "skip_instance_cache": True}
    return {**SETTINGS, "options": options}


def test_s3(server, pixels, bucket):
    assert np.array_equal(fetched("s3://bucket/survey/image.fits[IMAGE]", bucket), pixels)
    assert server.requests == ["/bucket/survey/image.fits"]


@pytest.mark.parametrize("failure", ["break", 503])
def test_s3_that_fails_is_tried_again(server, pixels, bucket, failure):
    server.plan = [failure, "good"]
    assert np.array_equal(fetched("s3://bucket/image.fits", bucket), pixels)
    assert len(server.requests) == 2


def test_s3_without_the_file(server, bucket):
    server.plan = [404]
    with pytest.raises(ImageError, match="s3://bucket/image.fits does not exist") as raised:
        fetched("s3://bucket/image.fits", bucket)
    assert raised.value.flag == Flag.MISSING_FILE


def test_a_source_list_named_by_url(server):
    server.content = b"ID,RA,DEC\n007,150.5,2.25\n8,151.0,-3.0\n"
    columns = {"object_id": "ID", "ra": "RA", "dec": "DEC"}
    settings = {"columns": columns, "keep": {}, "remote": SETTINGS}
    found = read_list(f"{server.url}/lists/sources.csv", settings)
    assert found.object_id.tolist() == ["007", "8"]
    assert found.dec.tolist() == [2.25, -3.0]
    server.content = b""
    with pytest.raises(TableError, match=f"^{server.url}/lists/sources.csv: cannot be read as csv"):
        read_list(f"{server.url}/lists/sources.csv", settings)
    server.plan = [404]
    with pytest.raises(TableError, match="sources.csv does not exist"):
        read_list(f"{server.url}/lists/sources.csv", settings)
