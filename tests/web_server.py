"""A web server on loopback for tests: each path is answered by a function of the test."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    path: str
    headers: dict[str, str]


@dataclass
class WebServer:
    """A server; `answers` holds what it does by path, bytes to be sent or a function."""

    answers: dict[str, bytes | Callable] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    keeps_connections: bool = False
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def start(self, port: int = 0) -> None:
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1" if served.keeps_connections else "HTTP/1.0"

            def setup(self):
                served.connections += 1
                super().setup()

            def do_GET(self):
                served.requests.append(Request(self.path, dict(self.headers)))
                answer = served.answers.get(self.path.partition("?")[0])
                if answer is None:
                    self.send_error(404)
                elif isinstance(answer, bytes):
                    send(self, answer)
                else:
                    answer(self)

            def log_message(self, *_):
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._httpd.daemon_threads = True
        self.port = self._httpd.server_address[1]
        threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()


def send(handler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def redirect(location: str, status: int = 302) -> Callable:
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def refuse(status: int) -> Callable:
    return lambda handler: handler.send_error(status)
