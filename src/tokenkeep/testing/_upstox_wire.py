"""The wire of the local Upstox: HTTP in, HTTP out, and the faults that are of the wire."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tokenkeep.testing._upstox_desk import COOKIE, Desk, Refused, Request
from tokenkeep.testing._upstox_values import Faults, LocalAccount, Step

ROUTES: Final = {
    "GET /api/v2/login/authorization/dialog": Step.DIALOG,
    "POST /service/login/open/v6/auth/1fa/otp/generate": Step.OTP_GENERATE,
    "POST /service/login/open/v4/auth/1fa/otp-totp/verify": Step.OTP_VERIFY,
    "POST /service/login/open/v3/auth/2fa": Step.PIN,
    "POST /service/login/v2/oauth/authorize": Step.AUTHORIZE,
    "POST /api/v2/login/authorization/token": Step.TOKEN,
    "DELETE /api/v2/logout": Step.LOGOUT,
    "GET /api/v2/user/profile": Step.PROFILE,
}

LOGIN_PAGE: Final = "/login"

MAX_BODY: Final = 65_536

PAGE: Final = "<!doctype html><title>{0}</title><h1>{0}</h1>"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)


class _HangUp(Exception):
    """The connection is closed without an answer."""


class UpstoxServer(ThreadingHTTPServer):
    """Hold what the handlers share. Connections that are still open are closed with it."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(
        self,
        port: int,
        desk: Desk,
        faults_for: Callable[[LocalAccount | None], Faults],
        on_step: Callable[[str, str], None],
    ) -> None:
        self.desk = desk
        self.faults_for = faults_for
        self.on_step = on_step
        self.closing = Event()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        """Bind, and ask no name service who 127.0.0.1 is: the standard one does, and may wait for it."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, then serve it in a thread."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, then close it."""
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening, wake who waits in a delay, and hang up on those who are still connected."""
        self.closing.set()
        super().server_close()
        for connection in self._open.copy():
            super().shutdown_request(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about clients that went away; a test kills some on purpose."""
        error = sys.exception()
        torn_down = self.closing.is_set() and isinstance(error, OSError | ValueError)
        if not torn_down and not isinstance(error, ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: UpstoxServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the signature of http.server
        """Log nothing: request lines hold codes."""

    def _serve(self) -> None:
        try:
            answer = self._answer()
        except _HangUp:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def _answer(self) -> _Answer:
        target = urlsplit(self.path)
        body = self._body()
        if target.path == LOGIN_PAGE:
            return _page(200, "Log in")
        step = ROUTES.get(f"{self.command} {target.path}")
        if step is None:
            return _page(404, "Not found")
        request = self._request(dict(parse_qsl(target.query)), body)
        account = self.server.desk.arrived(step, request)
        faults = self.server.faults_for(account)
        self.server.on_step(account.user_id if account else "", step)
        return self._faulty(step, request, faults)

    def _faulty(self, step: Step, request: Request, faults: Faults) -> _Answer:
        if step in faults.delay:
            self.server.closing.wait(faults.delay[step])
        if faults.hang_up == step or self.server.closing.is_set():
            raise _HangUp
        if faults.blocked == step:
            return _page(403, "Access denied")
        try:
            _refuse(step, faults)
            answer = self._done(step, request, faults)
        except Refused as refused:
            headers = {} if faults.retry_after is None else {"Retry-After": str(faults.retry_after)}
            answer = _json(_refusal(self.path, refused), faults, refused.status, headers)
        if faults.lost_answer == step:
            raise _HangUp
        return answer

    def _done(self, step: Step, request: Request, faults: Faults) -> _Answer:
        desk = self.server.desk
        if step is Step.DIALOG:
            cookie, query = desk.begin(request)
            where = {"Location": f"{LOGIN_PAGE}?{query}", "Set-Cookie": f"{COOKIE}={cookie}; Path=/; HttpOnly"}
            return _Answer(302, b"", "text/html; charset=utf-8", where)
        if step is Step.TOKEN:
            return _json(desk.exchange(request, faults), faults)
        if step is Step.LOGOUT:
            return _json(desk.log_out(request), faults)
        if step is Step.PROFILE:
            return _json(desk.profile(request), faults)
        return _json(desk.proceed(step, request, faults), faults)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            raise _HangUp
        return self.rfile.read(int(length))

    def _request(self, query: dict[str, str], body: bytes) -> Request:
        cookies = SimpleCookie(self.headers.get("Cookie", ""))
        return Request(
            query=query,
            data=self._data(body),
            cookie=cookies[COOKIE].value if COOKIE in cookies else "",
            bearer=self.headers.get("Authorization", "").removeprefix("Bearer "),
        )

    def _data(self, body: bytes) -> dict[str, Any]:
        if self.headers.get_content_type() == "application/x-www-form-urlencoded":
            return dict(parse_qsl(body.decode(errors="replace")))
        try:
            document = json.loads(body or b"{}")
        except ValueError:
            return {}
        data = document.get("data") if isinstance(document, dict) else None
        return data if isinstance(data, dict) else {}


def _refuse(step: Step, faults: Faults) -> None:
    if faults.too_many == step:
        raise Refused(429, "UDAPI10005", "Too Many Request Sent")
    if faults.broken == step:
        raise Refused(500, "UDAPI100500", "Something went wrong. Please contact us.")


def _refusal(path: str, refused: Refused) -> dict[str, Any]:
    """Return a refusal as the stage of the path words it."""
    if path.startswith("/service/"):
        return {"success": False, "error": {"code": refused.code, "message": refused.message}}
    return {"status": "error", "errors": [{"error_code": refused.code, "message": refused.message}]}


def _json(
    document: dict[str, Any], faults: Faults, status: int = 200, headers: dict[str, str] | None = None
) -> _Answer:
    # The client reads JSON only if the type is exactly this, with nothing after it.
    content_type = "application/json; charset=utf-8" if faults.charset else "application/json"
    return _Answer(status, json.dumps(document).encode(), content_type, headers or {})


def _page(status: int, title: str) -> _Answer:
    return _Answer(status, PAGE.format(title).encode(), "text/html; charset=utf-8")
