"""A local OAuth 2 server to test against: a token and a revocation endpoint on loopback, with its faults.

It keeps the rules that hurt: a refresh token is good once, and one that comes twice ends its whole family
(RFC 9700 section 4.14.2).
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import socket
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote_plus

OMIT: Final = object()
"""In `LocalOAuth2.fields`: leave this field out of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How the server treats one request.

    Attributes:
        status: answer with this status and with `body` instead of looking at the request; 0: do what was asked.
        cut: do what was asked, then close the connection without an answer.
        stall: do what was asked, then wait so many seconds before answering, or until the server closes.
    """

    status: int = 0
    body: str | bytes = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    stall: float = 0.0

    @classmethod
    def error(cls, code: str, description: str | None = None, *, status: int = 400, **headers: str) -> Self:
        """Make an error response of RFC 6749 section 5.2; an underscore in a header's name is a hyphen."""
        fields = {"error": code} if description is None else {"error": code, "error_description": description}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status=status, body=json.dumps(fields), headers=named)


@dataclass(slots=True)
class _Family:
    """What one authorisation led to."""

    scope: str
    alive: bool = True


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    headers: Mapping[str, str]


class LocalOAuth2:
    """An authorisation server for one client, running while the `with` block does.

    Attributes:
        rotating: give a new refresh token with each renewal; else the old one stays good and none is sent.
        fields: put over each successful answer, as they are; `OMIT` takes a field out.
        faults: how the next requests are treated, one each.
        forms: every form that came, in order.
        authorizations: the `Authorization` header of each, `None` where there was none.
        granted: how many tokens were granted.
    """

    def __init__(self, *, client_id: str = "app", client_secret: str | None = "app-secret") -> None:  # noqa: S107  # made up
        self.client_id = client_id
        self.client_secret = client_secret
        self.rotating = True
        self.fields: dict[str, Any] = {}
        self.faults: deque[Fault] = deque()
        self.forms: list[dict[str, str]] = []
        self.authorizations: list[str | None] = []
        self.granted = 0
        self._current: dict[str, _Family] = {}
        self._spent: dict[str, _Family] = {}
        self._access: dict[str, _Family] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = _Server(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="local-oauth2", daemon=True)

    @property
    def url(self) -> str:
        """The address of the server, without a path."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def token_endpoint(self) -> str:
        """Where tokens are granted."""
        return f"{self.url}/token"

    @property
    def revocation_endpoint(self) -> str:
        """Where tokens are revoked (RFC 7009)."""
        return f"{self.url}/revoke"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and let go of who is kept waiting. Safe to repeat."""
        self._closing.set()
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()

    def authorize(self, scope: str = "") -> tuple[str, str]:
        """Do what a person would do in a browser: return an access token and a refresh token."""
        with self._lock:
            family = _Family(scope)
            return self._new_access(family), self._new_refresh(family)

    def is_live(self, access_token: str) -> bool:
        """Tell whether an access token would be accepted."""
        with self._lock:
            family = self._access.get(access_token)
            return family is not None and family.alive

    def _new_access(self, family: _Family) -> str:
        token = f"access-{secrets.token_urlsafe(24)}"
        self._access[token] = family
        self.granted += 1
        return token

    def _new_refresh(self, family: _Family) -> str:
        token = f"refresh-{secrets.token_urlsafe(24)}"
        self._current[token] = family
        return token

    def _handle(self, path: str, form: dict[str, str], authorization: str | None) -> tuple[_Reply, Fault]:
        with self._lock:
            self.forms.append(form)
            self.authorizations.append(authorization)
            fault = self.faults.popleft() if self.faults else Fault()
            if fault.status:
                body = fault.body.encode() if isinstance(fault.body, str) else fault.body
                return _Reply(fault.status, body, fault.headers), fault
            return self._answer(path, form, authorization), fault

    def _answer(self, path: str, form: dict[str, str], authorization: str | None) -> _Reply:
        if not self._knows(form, authorization):
            return _error("invalid_client", HTTPStatus.UNAUTHORIZED)
        if path == "/revoke":
            return self._revoke(form)
        if path != "/token":
            return _Reply(HTTPStatus.NOT_FOUND, b"<html>not here</html>", {"Content-Type": "text/html"})
        if form.get("grant_type") == "client_credentials":
            return self._grant(_Family(form.get("scope", "")), None)
        if form.get("grant_type") == "refresh_token":
            return self._renew(form.get("refresh_token", ""))
        return _error("unsupported_grant_type")

    def _knows(self, form: dict[str, str], authorization: str | None) -> bool:
        """Check RFC 6749 section 2.3.1, or the bare id of a public client (section 3.2.1)."""
        if self.client_secret is None:
            return authorization is None and form.get("client_id") == self.client_id
        try:
            pair = base64.b64decode((authorization or "").removeprefix("Basic "), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        return [unquote_plus(part) for part in pair.split(":", 1)] == [self.client_id, self.client_secret]

    def _renew(self, refresh_token: str) -> _Reply:
        if refresh_token in self._spent:
            self._spent[refresh_token].alive = False
        family = self._current.get(refresh_token)
        if family is None or not family.alive:
            return _error("invalid_grant")
        if not self.rotating:
            return self._grant(family, None)
        self._spent[refresh_token] = self._current.pop(refresh_token)
        return self._grant(family, self._new_refresh(family))

    def _grant(self, family: _Family, refresh_token: str | None) -> _Reply:
        answer: dict[str, Any] = {"access_token": self._new_access(family), "token_type": "Bearer", "expires_in": 3600}
        if family.scope:
            answer["scope"] = family.scope
        if refresh_token is not None:
            answer["refresh_token"] = refresh_token
        return _json({name: value for name, value in {**answer, **self.fields}.items() if value is not OMIT})

    def _revoke(self, form: dict[str, str]) -> _Reply:
        """RFC 7009 section 2.2: a token that is unknown or dead is no error."""
        token = form.get("token", "")
        family = self._access.pop(token, None) if token in self._access else self._current.get(token)
        if family is not None and token in self._current:
            family.alive = False
        return _Reply(HTTPStatus.OK, b"", {})


def _json(fields: Mapping[str, Any], status: int = HTTPStatus.OK) -> _Reply:
    return _Reply(
        status, json.dumps(fields).encode(), {"Content-Type": "application/json", "Cache-Control": "no-store"}
    )


def _error(code: str, status: int = HTTPStatus.BAD_REQUEST) -> _Reply:
    return _json({"error": code}, status)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them

    def __init__(self, behind: LocalOAuth2) -> None:
        self.behind = behind
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have hung up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        form = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode(), True).items()}  # noqa: FBT003  # keep blank values
        reply, fault = self.server.behind._handle(self.path, form, self.headers.get("Authorization"))  # noqa: SLF001  # one server
        if fault.stall:
            self.server.behind._closing.wait(fault.stall)  # noqa: SLF001  # one server
        if fault.cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        with suppress(ConnectionError):
            self._send(reply)

    def _send(self, reply: _Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name it has in the base
        """Write nothing to the terminal."""
