"""A forge on loopback: GitHub's or GitLab's API as far as we call it, and real git over HTTP, both behind one token."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "forge-token-0123456789abcdef"


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeForge:
    """Its pull requests, and all that it was asked. `answers` overrule: (method, end of path) -> (status, body)."""

    kind: str
    root: Path
    url: str = ""
    pulls: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    answers: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    git_logins: list[str] = field(default_factory=list)

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/{'v3' if self.kind == 'github' else 'v4'}"

    def answer(self, asked: Asked) -> tuple[int, Any]:
        for (method, end), given in self.answers.items():
            if asked.method == method and asked.path.endswith(end):
                return given
        said = asked.headers.get("private-token") or asked.headers.get("authorization", "").removeprefix("Bearer ")
        if said != TOKEN:
            return 401, {"message": "Bad credentials"}
        return self._github(asked) if self.kind == "github" else self._gitlab(asked)

    def _github(self, asked: Asked) -> tuple[int, Any]:
        if asked.path == "/api/v3/repos/acme/app":
            return 200, {"default_branch": "trunk"}
        if asked.path == "/api/v3/repos/acme/app/pulls" and asked.method == "GET":
            return 200, [each for each in self.pulls if asked.query["head"] == f"acme:{each['head']}"]
        if asked.path == "/api/v3/repos/acme/app/pulls" and asked.method == "POST":
            return self._made(asked, "number", "html_url", "open")
        number = int(asked.path.rpartition("/")[2])
        self.pulls[number - 1].update(asked.body)
        return 200, self.pulls[number - 1]

    def _gitlab(self, asked: Asked) -> tuple[int, Any]:
        if asked.path == "/api/v4/projects/acme%2Fapp":
            return 200, {"default_branch": "trunk"}
        if asked.path == "/api/v4/projects/acme%2Fapp/merge_requests" and asked.method == "GET":
            return 200, [each for each in self.pulls if asked.query["source_branch"] == each["source_branch"]]
        if asked.path == "/api/v4/projects/acme%2Fapp/merge_requests" and asked.method == "POST":
            return self._made(asked, "iid", "web_url", "opened")
        number = int(asked.path.rpartition("/")[2])
        self.pulls[number - 1].update(asked.body)
        return 200, self.pulls[number - 1]

    def _made(self, asked: Asked, number: str, page: str, state: str) -> tuple[int, Any]:
        n = len(self.pulls) + 1
        self.pulls.append({**asked.body, number: n, page: f"{self.url}/acme/app/pull/{n}", "state": state})
        return 201, self.pulls[-1]


@contextmanager
def forge(kind: str, root: Path) -> Iterator[FakeForge]:
    """Serves the bare repositories below `root` as `URL/NAME.git`, beside the API."""
    fake = FakeForge(kind, root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeForge
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _any(self) -> None:
        parts = urlsplit(self.path)
        body = self._body()
        if not parts.path.startswith("/api/"):
            self._git(parts.path, parts.query, body)
            return
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, parts.path, query, headers, json.loads(body) if body else None)
        self.fake.asked.append(asked)
        status, said = self.fake.answer(asked)
        self._say(status, {"Content-Type": "application/json"}, json.dumps(said).encode())

    do_GET = do_POST = do_PATCH = do_PUT = _any  # names that http.server wants

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _git(self, path: str, query: str, body: bytes) -> None:
        login = self.headers.get("Authorization", "")
        said = base64.b64decode(login.removeprefix("Basic ")).decode() if login else ""
        self.fake.git_logins.append(said)
        if said.partition(":")[2] != TOKEN:
            self._say(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"no")
            return
        cgi = {
            "PATH": os.defpath,
            "GIT_PROJECT_ROOT": str(self.fake.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": unquote(path),
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": "somebody",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=cgi, capture_output=True, check=True)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self._say(int(headers.pop("Status", "200 OK").split()[0]), headers, rest)

    def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
