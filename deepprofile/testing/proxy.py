"""A proxy before an S3 server that is slow, fails or loses replies, as told.

It passes requests on byte by byte, with the ``Host`` that the client signed, so that signatures
stay valid. Requests to it are plain HTTP/1.1.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOST = "127.0.0.1"
TIMEOUT = 30.0
"""Seconds that the server behind may take to answer."""
_OF_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}
_UNAVAILABLE = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>ServiceUnavailable</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)


@dataclass(frozen=True)
class Request:
    """A request that came to the proxy.

    Attributes:
        method: such as ``PUT``.
        path: with the query, as the client sent it.
        headers: names in small letters.
        body: what came with it, as sent (it may be signed in chunks).
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def moves_main(self) -> bool:
        """Whether this is the conditional PUT that moves the branch that readers see."""
        return self.method == "PUT" and "/refs/branch.main/" in self.path

    @property
    def is_write(self) -> bool:
        """Whether it may change what lies in the store."""
        return self.method in ("PUT", "POST", "DELETE")


Rule = Callable[[Request], bool]


@dataclass
class Proxy:
    """A running proxy; what it does to requests may be changed at any time.

    Attributes:
        endpoint: ``http://127.0.0.1:PORT``, instead of the server's own.
        latency: seconds that each request waits before it is passed on.
        fail_every: each n-th request is not passed on: in turn it gets the status 503 and a
            closed connection; 0: none, 1: all.
        lose_reply: the reply to such a request, which is carried out, is dropped with the
            connection.
        before: called with each request before it is passed on.
        requests: how many came.
        failed: how many were not passed on.
        lost: the requests whose replies were dropped.
        bytes_in: bytes of the bodies that were passed on to the server.
        bytes_out: bytes of the bodies of its replies.
    """

    endpoint: str
    latency: float = 0.0
    fail_every: int = 0
    lose_reply: Rule | None = None
    before: Callable[[Request], None] | None = None
    requests: int = 0
    failed: int = 0
    lost: list[Request] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def reset(self) -> None:
        """Behave well again, and count from nothing."""
        with self._lock:
            self.latency, self.fail_every, self.lose_reply, self.before = 0.0, 0, None, None
            self.requests, self.failed, self.bytes_in, self.bytes_out = 0, 0, 0, 0
            self.lost = []

    def _number_failed(self) -> int:
        """Count a request; 0 if it is to be passed on, else the how many-th failure it is."""
        with self._lock:
            self.requests += 1
            if not self.fail_every or self.requests % self.fail_every:
                return 0
            self.failed += 1
            return self.failed

    def _count(self, sent: int, received: int) -> None:
        with self._lock:
            self.bytes_in += sent
            self.bytes_out += received

    def _loses(self, request: Request) -> bool:
        if self.lose_reply is None or not self.lose_reply(request):
            return False
        with self._lock:
            self.lost.append(request)
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None:
            raise ValueError(f"{target}: expected http://HOST:PORT")
        self.target = (parts.hostname, parts.port)
        super().__init__((HOST, 0), _Handler)
        self.proxy = Proxy(f"http://{HOST}:{self.server_address[1]}")

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    """Passes the requests of one connection on."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _handle(self) -> None:
        request = Request(
            self.command,
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            self._body(),
        )
        proxy = self.server.proxy
        if number := proxy._number_failed():
            self._refuse(reset=number % 2 == 0)
            return
        if proxy.latency:
            time.sleep(proxy.latency)
        if proxy.before is not None:
            proxy.before(request)
        try:
            self._pass_on(request)
        except OSError:
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunked()
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def handle_expect_100(self) -> bool:
        """Answered in `_body`."""
        return True

    def _refuse(self, *, reset: bool) -> None:
        self.close_connection = True
        if not reset:
            self.send_response(503)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(_UNAVAILABLE)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(_UNAVAILABLE)

    def _pass_on(self, request: Request) -> None:
        connection = HTTPConnection(*self.server.target, timeout=TIMEOUT)
        try:
            connection.putrequest(
                request.method, request.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in {*_OF_A_CONNECTION, "expect", "content-length"}:
                    connection.putheader(name, value)
            if request.body or request.method in ("PUT", "POST"):
                connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body or None)
            reply = connection.getresponse()
            body = reply.read()
            self.server.proxy._count(len(request.body), len(body))
            if self.server.proxy._loses(request):
                self.close_connection = True
                return
            self._answer(request, reply, body)
        finally:
            connection.close()

    def _answer(self, request: Request, reply: HTTPResponse, body: bytes) -> None:
        self.send_response_only(reply.status, reply.reason)
        length = str(len(body))
        for name, value in reply.getheaders():
            if request.method == "HEAD" and name.lower() == "content-length":
                length = value
            if name.lower() not in {*_OF_A_CONNECTION, "content-length"}:
                self.send_header(name, value)
        if reply.status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        if request.method != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are counted, not logged."""


@contextmanager
def proxy_before(target: str) -> Iterator[Proxy]:
    """Run a proxy in a thread of this process until the end of the ``with`` block.

    Args:
        target: the server's own endpoint, ``http://HOST:PORT``.

    Raises:
        ValueError: if the endpoint is not of this form.
    """
    with _Server(target) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.proxy
        finally:
            server.shutdown()
            thread.join()
