"""The scripted agent itself. Runs on the host: standard library only, imports nothing of ours.

An instruction with a fenced `script` block is played line by line, one JSON
object a line, one key a step:

    {"say": TEXT}  {"write": PATH, "text": TEXT}  {"sh": COMMAND}  {"sleep": SECONDS}
    {"raw": LINE}  {"stderr": TEXT}  {"ask": true}  {"ignore": "TERM"}  {"fork": N}
    {"kill": "KILL"}  {"exit": CODE}

`ask` has the model carry out the instruction, `fork` leaves N sleeping
children behind, `exit` ends without a result. Without a block the model is
asked at once. With `--keep` a file under HOME holds the session: what was said
to the model and by it, and how much of the script is done. The key is taken out of the environment before anything else
runs, and never printed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

VERSION = "1"
MAX_CHILDREN = 32
CHILD_LIVES_S = 600
SHELL_TIMEOUT_S = 600
RETRY_STATUSES = (429, 500, 502, 503, 504, 529)
TOOL = {
    "name": "Bash",
    "description": "Run a shell command in the working directory",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
}


@dataclass(frozen=True)
class Wire:
    """How the model is reached. Taken from the environment, which then no longer holds the key."""

    url: str
    headers: dict[str, str]
    timeout_s: float
    retries: int


class Failed(Exception):
    """The provider gave no answer; the fields of the error line to print."""

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.fields = fields


def emit(kind: str, **fields: Any) -> None:
    out(json.dumps({"type": kind, **fields}, ensure_ascii=False))


def out(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def usage(problem: str) -> NoReturn:
    complain(f"scripted: error: {problem}")
    raise SystemExit(2)


def take_wire() -> Wire:
    """Read the wire and clear the key from the environment, so that no command the agent runs inherits it."""
    bearer = os.environ.pop("OVERNIGHT_SCRIPTED_BEARER", "")
    api_key = os.environ.pop("OVERNIGHT_SCRIPTED_API_KEY", "")
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    if bearer:
        headers["Authorization"] = f"Bearer {bearer}"
    if api_key:
        headers["x-api-key"] = api_key
    timeout_s = float(os.environ.get("OVERNIGHT_SCRIPTED_TIMEOUT_S", "30"))
    retries = int(os.environ.get("OVERNIGHT_SCRIPTED_RETRIES", "2"))
    return Wire(os.environ.get("OVERNIGHT_SCRIPTED_BASE_URL", ""), headers, timeout_s, retries)


def call(wire: Wire, body: dict[str, Any]) -> dict[str, Any]:
    """One answer of the model; tries again what time may mend."""
    for attempt in range(1, wire.retries + 2):
        emit("request")
        try:
            return send(wire, body)
        except Failed as failed:
            if not time_may_mend(failed) or attempt > wire.retries:
                raise
            delay_s = 0.2 * 2**attempt
            emit("retry", attempt=attempt, delay_s=delay_s, **failed.fields)
            time.sleep(delay_s)
    raise AssertionError("the last attempt raises")


def time_may_mend(failed: Failed) -> bool:
    return failed.fields["error"] in ("timeout", "connection") or failed.fields.get("status") in RETRY_STATUSES


def send(wire: Wire, body: dict[str, Any]) -> dict[str, Any]:
    check_key(wire)
    request = urllib.request.Request(  # noqa: S310  # the URL is the lock's
        f"{wire.url.rstrip('/')}/v1/messages", json.dumps(body).encode(), wire.headers
    )
    try:
        with urllib.request.urlopen(request, timeout=wire.timeout_s) as response:  # noqa: S310  # same
            text = response.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        raise Failed(error="http", status=error.code, text=error.read().decode(errors="replace")[:2000]) from None
    except TimeoutError:
        raise Failed(error="timeout", text=f"no answer within {wire.timeout_s:g} s") from None
    except urllib.error.URLError as error:
        late = isinstance(error.reason, TimeoutError)
        raise Failed(error="timeout" if late else "connection", text=str(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise Failed(error="connection", text=str(error) or type(error).__name__) from None
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("content"), list):
        raise Failed(error="not-the-api", text=text[:2000] or "an empty answer")
    return answer


def check_key(wire: Wire) -> None:
    """Refuse what a header cannot carry, since the library's complaint would print it."""
    keys = [value for name, value in wire.headers.items() if name in ("Authorization", "x-api-key")]
    if not keys:
        raise Failed(error="no-key", text="no key in the environment")
    if not all(re.fullmatch(r"[ -~]+", key) for key in keys):
        raise Failed(error="bad-key", text="the key holds characters that a header cannot carry")


class Session:
    """What a later run can go on with: kept in a file, when asked to, rewritten as it grows."""

    def __init__(self, known: str | None, instruction: str, *, keep: bool) -> None:
        self.id, self._keep = known or os.urandom(8).hex(), keep
        self._path = os.path.join(os.environ["HOME"], ".overnight", "sessions", f"{self.id}.json")
        self.script, self.done = "", 0
        self.messages: list[dict[str, Any]] = []
        if known is not None:
            self._read()
        self.script = self.script or instruction
        self.say({"role": "user", "content": instruction})

    def say(self, *messages: dict[str, Any]) -> None:
        self.messages += messages
        self._write()

    def step(self) -> None:
        """One more step of the script is begun; it is not begun again."""
        self.done += 1
        self._write()

    def _read(self) -> None:
        try:
            with open(self._path, encoding="utf-8") as file:
                self.script, self.done, self.messages = json.load(file)
        except FileNotFoundError:
            usage(f"no session {self.id}")

    def _write(self) -> None:
        if not self._keep:
            return
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with open(self._path + ".new", "w", encoding="utf-8") as file:
            json.dump([self.script, self.done, self.messages], file)
        os.replace(self._path + ".new", self._path)


def ask(wire: Wire, options: argparse.Namespace, session: Session) -> None:
    """Let the model work until it ends its turn, then give the verdict and exit."""
    tokens = 0
    tools = {} if options.no_tools else {"tools": [TOOL]}
    for _ in range(options.max_turns):
        try:
            answer = call(wire, {"model": options.model, "max_tokens": 4096, "messages": session.messages, **tools})
        except Failed as failed:
            emit("error", **failed.fields)
            finish(False, tokens=tokens, **failed.fields)
        used = answer.get("usage") or {}
        sent, got = int(used.get("input_tokens") or 0), int(used.get("output_tokens") or 0)
        tokens += sent + got
        emit("usage", input=sent, output=got, model=answer.get("model"))
        results, said = act(answer)
        told = {"role": "assistant", "content": answer["content"]}
        if not results:
            session.say(told)
            finish(True, tokens=tokens, text=said)
        session.say(told, {"role": "user", "content": results})
    finish(False, tokens=tokens, error="turn-limit", text=f"no end after {options.max_turns} turns")


def act(answer: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Carry out the tool calls of one answer; their results, and the text beside them."""
    model, results, said = answer.get("model"), [], ""
    for block in answer["content"]:
        if block.get("type") == "text":
            said += block["text"]
            emit("text", text=block["text"], model=model)
        elif block.get("type") == "tool_use":
            ok, output = shell(str(block["input"].get("command", "")), model)
            outcome = {"type": "tool_result", "tool_use_id": block["id"], "content": output, "is_error": not ok}
            results.append(outcome)
    return results, said


def shell(command: str, model: str | None = None) -> tuple[bool, str]:
    emit("tool_started", tool="Bash", model=model, command=command)
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SHELL_TIMEOUT_S,
            check=False,
        )
        ok, output = done.returncode == 0, done.stdout.decode(errors="replace")[-20000:]
    except subprocess.TimeoutExpired:
        ok, output = False, f"no end after {SHELL_TIMEOUT_S} s"
    emit("tool_ended", tool="Bash", ok=ok, text=output)
    return ok, output


def finish(ok: bool, **fields: Any) -> NoReturn:
    emit("result", ok=ok, **fields)
    raise SystemExit(0 if ok else 1)


def write(step: dict[str, Any]) -> None:
    emit("tool_started", tool="Write", command=step["write"])
    with open(step["write"], "w", encoding="utf-8") as file:
        file.write(step["text"])
    emit("tool_ended", tool="Write", ok=True)


def fork(count: int) -> None:
    for _ in range(min(count, MAX_CHILDREN)):
        subprocess.Popen(["/bin/sleep", str(CHILD_LIVES_S)], stdin=subprocess.DEVNULL)


def leave(code: int) -> NoReturn:
    raise SystemExit(code)


def signal_number(name: str) -> signal.Signals:
    return signal.Signals[f"SIG{name}"]


STEPS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "say": lambda step: emit("text", text=step["say"]),
    "write": write,
    "sh": lambda step: shell(step["sh"]),
    "sleep": lambda step: time.sleep(step["sleep"]),
    "raw": lambda step: out(step["raw"]),
    "stderr": lambda step: complain(step["stderr"]),
    "ignore": lambda step: signal.signal(signal_number(step["ignore"]), signal.SIG_IGN),
    "fork": lambda step: fork(step["fork"]),
    "kill": lambda step: os.kill(os.getpid(), signal_number(step["kill"])),
    "exit": lambda step: leave(step["exit"]),
}


def read_script(instruction: str) -> list[dict[str, Any]] | None:
    block = re.search(r"^```script\n(.*?)^```", instruction, re.MULTILINE | re.DOTALL)
    if block is None:
        return None
    steps: list[dict[str, Any]] = []
    for line in filter(str.strip, block.group(1).splitlines()):
        try:
            step = json.loads(line)
        except ValueError:
            usage(f"not JSON: {line}")
        if not isinstance(step, dict) or not {"ask", *STEPS} & set(step):
            usage(f"not a step: {line}")
        steps.append(step)
    return steps


def play(steps: list[dict[str, Any]], wire: Wire, options: argparse.Namespace, session: Session) -> NoReturn:
    for step in steps[session.done :]:
        session.step()
        if "ask" in step:
            ask(wire, options, session)
        next(STEPS[key] for key in step if key in STEPS)(step)
    finish(True, text="the script ended")


def main() -> None:
    wire = take_wire()
    parser = argparse.ArgumentParser(prog="scripted", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-turns", type=int, default=50)
    parser.add_argument("--no-tools", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--session")
    parser.add_argument("instruction")
    options = parser.parse_args()
    session = Session(options.session, options.instruction, keep=options.keep)
    steps = read_script(session.script)
    emit("init", version=VERSION, model=options.model, **({"session": session.id} if options.keep else {}))
    if steps is None:
        ask(wire, options, session)
    else:
        play(steps, wire, options, session)


if __name__ == "__main__":
    main()
