"""From the host, as it stands: one HTTP request to a provider, or one command under the user's own login shell.

Runs on the host, sent as text and left nowhere. Standard library only, Python
3.8 or newer, imports nothing of ours. A key comes in the order, which travels
on standard input; what goes back holds no value of the login environment that
looks like a secret.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from typing import Any

    Json = dict[str, Any]

TEXT_BYTES = 20000
OUTPUT_BYTES = 2000000
MARK = b"\0OVERNIGHT-ENV-ENDS\0"
SECRET_NAME = re.compile("KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)


def main(order: Json) -> None:
    sys.stdout.write("\nOVERNIGHT-ONHOST-CALL 1\n")  # login files may have printed before us
    answer = request(order["request"]) if "request" in order else command(order["command"])
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def request(order: Json) -> Json:
    """One POST without proxies, as our runs make it; what came back, or why nothing did."""
    began = time.monotonic()
    answer: Json = {"status": None, "media_type": "", "text": "", "error": "", "step": "", "address": ""}
    try:
        ask(order, answer, began + order["timeout_s"])
    except (OSError, http.client.HTTPException, ValueError) as error:
        answer["error"] = type(error).__name__ + ": " + str(error)
    answer["seconds"] = time.monotonic() - began
    return answer


def ask(order: Json, answer: Json, deadline: float) -> None:
    url = urllib.parse.urlsplit(order["url"])
    host, secure = url.hostname or "", url.scheme == "https"
    port = url.port or (443 if secure else 80)
    answer["step"] = "dns"
    answer["address"] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
    answer["step"] = "connect"
    link = socket.create_connection((host, port), left(deadline))
    if secure:
        answer["step"] = "tls"
        link = ssl.create_default_context().wrap_socket(link, server_hostname=host)
    answer["step"] = "answer"
    connection = http.client.HTTPConnection(host, port)
    connection.sock = link
    try:
        body = json.dumps(order["body"]).encode()
        path = url.path + ("?" + url.query if url.query else "")
        connection.request("POST", path or "/", body, {"Content-Type": "application/json", **order["headers"]})
        response = connection.getresponse()
        answer["status"], answer["media_type"] = response.status, response.getheader("content-type") or ""
        read(response, link, answer, deadline, order["enough"])
    finally:
        connection.close()


def read(response: Any, link: Any, answer: Json, deadline: float, enough: Any) -> None:
    """The body, until it says what we need to know: a stream that drips need not be read to its end."""
    text = b""
    while len(text) < TEXT_BYTES:
        link.settimeout(left(deadline))
        part = response.read1(4096)
        text += part
        answer["text"] = text.decode("utf-8", "replace")
        whole = answer["text"].replace("\r", "").rpartition("\n\n")[0]  # an event without its data says no code
        if not part or any(word in whole for word in enough):
            return


def left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def command(order: Json) -> Json:
    """Run argv under the user's login shell, with all that it brings, in an empty folder; ended with its children."""
    shell = os.environ.get("SHELL") or "/bin/sh"
    folder = tempfile.mkdtemp(prefix="overnight-")
    script = 'env -0; printf \'\\0OVERNIGHT-ENV-ENDS\\0\'; cd "$1" && shift && exec env "$@"'
    assignments = [name + "=" + value for name, value in order["env"].items()]
    argv = [shell, "-lc", script, "sh", folder, *assignments, *order["argv"]]
    began = time.monotonic()
    try:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, start_new_session=True
            )
            code, timed_out = wait(child, order["timeout_s"])
            out.seek(0)
            err.seek(0)
            return told(out.read(OUTPUT_BYTES), err.read(OUTPUT_BYTES), code, timed_out, time.monotonic() - began)
    except OSError as error:
        return {"code": None, "out": "", "err": str(error), "timed_out": False, "seconds": 0.0, "names": []}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait(child: subprocess.Popen[bytes], timeout_s: float) -> tuple[int | None, bool]:
    try:
        return child.wait(timeout_s), False
    except subprocess.TimeoutExpired:
        return None, True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # what it left behind, too
        child.wait()


def told(out: bytes, err: bytes, code: int | None, timed_out: bool, seconds: float) -> Json:
    """What it printed, without the values of its own secrets."""
    head, found, printed = out.partition(MARK)
    if not found:
        head, printed = b"", b""
    pairs = [pair.partition(b"=")[::2] for pair in head.split(b"\0") if b"=" in pair]
    secrets = [v for n, v in pairs if SECRET_NAME.search(n.decode("utf-8", "replace")) and len(v) > 5]
    for secret in sorted(secrets, key=len, reverse=True):
        printed, err = printed.replace(secret, b"*" * len(secret)), err.replace(secret, b"*" * len(secret))
    return {
        "code": code,
        "out": printed.decode("utf-8", "replace"),
        "err": err.decode("utf-8", "replace"),
        "timed_out": timed_out,
        "seconds": seconds,
        "names": sorted(name.decode("utf-8", "replace") for name, _ in pairs),
    }
