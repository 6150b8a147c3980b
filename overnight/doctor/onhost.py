"""What a host would add to an agent behind our back: environments, login files, settings; and where its agents are.

Runs on the host, sent as text and left nowhere. Standard library only, Python
3.8 or newer, imports nothing of ours. What to look at comes with the order.
No value leaves the host: values are told apart by fingerprints, salted anew by
each order. The readers of files work on text, for a repository's files too.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import hashlib
import hmac
import json
import os
import platform
import pwd
import re
import select
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from collections.abc import Iterator
    from concurrent.futures import Future
    from typing import Any

    Json = dict[str, Any]
    Bound = tuple[str, int | None, str | None]  # name, line, value; a value that cannot be known by reading is None

FILE_BYTES, OUTPUT_BYTES, SOURCED, SAID = 20_000_000, 1_000_000, 20, 500
MARK = b"\nOVERNIGHT-SHELL "
TELL = "import json, os, sys; sys.stdout.write(chr(10) + sys.argv[1] + json.dumps(dict(os.environ)) + chr(10))"
SHELL_NEEDS = ("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "TMPDIR", "SSH_CLIENT", "SSH_CONNECTION")
SHELL_HEEDS = ("BASH_ENV", "ENV", "ZDOTDIR", "XDG_CONFIG_HOME")
READ_OF_INPUT = {"x86_64": "0 0x0 ", "aarch64": "63 0x0 "}  # how /proc shows read(0, ...)
_PLAIN = r"""(?:(?:"([^"$`\\]*)"|'([^']*)'|([^\s;&|"'$`\\(),]*))(?=[\s;&|),]|$))?"""
ASSIGNED = re.compile(r"(?<![\w$-])([A-Za-z_]\w*)=" + _PLAIN)
SET = re.compile(r"^\s*(?:(?:set(?:\s+-\w+)+|setenv|launchctl\s+setenv)\s+)?([A-Za-z_]\w*)\s+(?:DEFAULT=)?" + _PLAIN)
KEYED = re.compile(r"""^\s*(?:-\s+)?["']?([A-Za-z_][\w.-]*)["']?\s*[:=]\s*""" + _PLAIN)
SOURCES = re.compile(r"""(?:^|[;&{]|\bthen\b|\bdo\b)\s*(?:source|\.)\s+["']?([^\s"';&|]+)""")


def main(order: Json) -> None:
    sys.stdout.write("\nOVERNIGHT-ONHOST 1\n")  # login files may have printed before us; readers skip to this line
    sys.stdout.flush()
    interest = Interest(order)
    with ThreadPoolExecutor(24) as pool:
        ways = {name: pool.submit(shell, argv, order["shell_s"]) for name, argv in shells().items()}
        copies: dict[str, Json] = {}
        asked = ask_agents([*order["path"], *unfold(order["folders"])], copies, order, pool)
        files = [found for place in order["files"] for found in read_place(place, interest)]
        environments = {"sshd": {**interest.found(dict(os.environ)), "ended": "", "noise": 0}}
        paths: list[str] = []
        for name, way in ways.items():
            env, environments[name] = told(way.result(), interest)
            paths += env.get("PATH", "").split(os.pathsep)
        asked += ask_agents(paths, copies, order, pool)
        for copy, answer in asked:
            copy["said"] = answer.result()[0].decode("utf-8", "replace")[:SAID]
    found = {"environments": environments, "files": files, "copies": list(copies.values())}
    sys.stdout.write(json.dumps(found) + "\n")


def ask_agents(
    folders: list[str], copies: dict[str, Json], order: Json, pool: ThreadPoolExecutor
) -> list[tuple[Json, Future[tuple[bytes, str]]]]:
    """Add every copy of an agent that is new to `copies`, by its real path, and start to ask each for its version."""
    asked = []
    env = {"PATH": os.pathsep.join(order["path"]), "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    for harness, (command, argv) in order["agents"].items():
        for folder in dict.fromkeys(folders):
            path = shutil.which(command, path=folder) if os.path.isabs(folder) else None
            real = f"{harness} {os.path.realpath(path or '/')}"
            if path is not None and real not in copies:
                copies[real] = {"harness": harness, "path": path}
                words = [path if word == order["stands_for"] else word for word in argv]
                asked.append((copies[real], pool.submit(bounded, words, env, order["version_s"])))
    return asked


class Interest:
    """Which names are worth telling, and how their values are told apart without telling them."""

    def __init__(self, order: Json) -> None:
        self._salt = bytes.fromhex(order["salt"])
        self._names = re.compile("|".join(fnmatch.translate(name) for name in order["names"]))
        self._known = set(order["known"])
        self._traps = order["traps"]

    def fingerprint(self, value: str) -> str:
        """Empty for an empty value, which most programs take for an absent one."""
        digest = hmac.new(self._salt, value.encode("utf-8", "surrogateescape"), hashlib.sha256)
        return digest.hexdigest()[:16] if value else ""

    def prints(self, value: str | None) -> list[str] | None:
        """The fingerprint of a value, and of what is inside its quotes, spaces and `Bearer`; None for None."""
        if value is None:
            return None
        inner = value.strip().strip("\"'`\u2018\u2019\u201c\u201d")
        inner = re.sub(r"^(?i:bearer)\s+", "", inner)
        return [self.fingerprint(value), self.fingerprint(inner)]

    def wants(self, name: str, value: str | None = None) -> bool:
        """Whether it has a name to look out for, or a known value under whatever name."""
        return bool(self._names.match(name)) or not self._known.isdisjoint(self.prints(value) or ())

    def found(self, values: dict[str, str]) -> Json:
        """What there is to say of an environment, or of a file's bindings."""
        names = {name: self.prints(value) for name, value in values.items() if self.wants(name, value)}
        return {"names": names, "traps": list(self._trapped(values))}

    def _trapped(self, values: dict[str, str]) -> Iterator[list[str]]:
        """Each trap that these bindings fall into, with the variable."""
        for trap in self._traps:
            if not all(values.get(name) for name in trap["together"]):
                continue
            for name in trap["variables"] or trap["together"][:1]:
                value = values.get(name, "")
                fits = re.search(trap["value"] or "", value) is not None
                if value and fits and value.rstrip("/").endswith(tuple(trap["endings"]) or ""):
                    yield [trap["id"], name]


def read_json(text: str, keys: list[str]) -> list[Bound]:
    """What a JSON document holds under `keys`, dotted patterns. Below `env` the last part alone is the name.

    Raises:
        ValueError: it is no JSON; the message holds nothing of the text.
    """
    found: list[Bound] = []
    document = json.loads(text)
    for key in keys:
        for path, value in picked(document, key.split(".")):
            name = path[-1] if path[0] == "env" else ".".join(path)
            lines = [n for n, line in enumerate(text.splitlines(), 1) if json.dumps(path[-1]) in line]
            plain = value if isinstance(value, str) else None if isinstance(value, (dict, list)) else json.dumps(value)
            found.append((without_login(name), lines[0] if len(lines) == 1 else None, plain))
    return found


def picked(node: Any, pattern: list[str], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not pattern:
        yield path, node
    elif isinstance(node, dict):
        for name, inner in node.items():
            if fnmatch.fnmatchcase(name, pattern[0]):
                yield from picked(inner, pattern[1:], (*path, name))


def without_login(name: str) -> str:
    """Some files have addresses for names, and addresses may hold passwords."""
    return re.sub(r"//[^/@\s]*@", "//", name)[:120]


def read_lines(text: str, kind: str) -> Iterator[Bound]:
    """Every name that a file gives a value to, line by line; `kind` is shell, keys (TOML, YAML), netrc or git."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        if kind == "netrc":
            yield from ((f"machine {name}", number, None) for name in re.findall(r"\bmachine\s+(\S+)", line))
        elif kind == "git":
            head, key = re.match(r"\s*\[\s*([\w.-]+)", line), re.match(r"\s*([A-Za-z][\w-]*)\s*=", line)
            section = head[1] if head else section
            if key:
                yield f"{section}.{key[1]}".lower(), number, None
        else:
            shapes = (ASSIGNED, SET) if kind == "shell" else (KEYED,)
            for match in (match for shape in shapes for match in overlapping(shape, line)):
                yield match[1], number, next((part for part in match.groups()[1:] if part is not None), None)


def overlapping(shape: re.Pattern[str], line: str) -> Iterator[re.Match[str]]:
    """An alias holds assignments inside the value that it is given."""
    match = shape.search(line)
    while match:
        yield match
        match = shape.search(line, match.end(1))


def read_place(place: Json, interest: Interest) -> list[Json]:
    """What lies at one place of the order, which may be a pattern, and what its shell files source in their turn."""
    waiting = unfold([place["path"]])
    seen: list[str] = []
    found: list[Json] = []
    while waiting and len(seen) < SOURCED:
        path = waiting.pop(0)
        if os.path.realpath(path) in seen or not os.path.exists(path):
            continue
        seen.append(os.path.realpath(path))
        said = about(place["path"], shown(path))
        try:
            said["open"] = open_to_others(path)
            if os.path.isdir(path):
                said["names"] = [[without_login(name), None, None] for name in sorted(os.listdir(path))[:20]]
            elif place["kind"] != "is-there" and os.path.isfile(path):
                text = read_file(path)
                read_text(text, place, interest, said)
                waiting += sourced(text) if place["kind"] == "shell" else []
        except OSError as error:
            said["problem"] = error.strerror or "cannot be read"
        found.append(said)
    return found


def about(place: str, path: str) -> Json:
    """What there is to say of a file, before it is read."""
    return {"place": place, "path": path, "open": False, "names": [], "traps": [], "problem": ""}


def read_text(text: str, place: Json, interest: Interest, said: Json) -> Json:
    """Complete what is said of a file by what is in it."""
    try:
        bound = read_json(text, place["keys"]) if place["kind"] == "json" else list(read_lines(text, place["kind"]))
    except ValueError as error:
        said["problem"] = f"not valid JSON: {error}"
        return said
    if place["kind"] not in ("json", "netrc"):
        bound = [each for each in bound if each[0] in place["keys"] or interest.wants(each[0], each[2])]
    said["names"] = [[name, line, interest.prints(value)] for name, line, value in bound]
    said["traps"] = interest.found({name: value for name, _, value in bound if value})["traps"]
    return said


def read_file(path: str) -> str:
    if os.path.getsize(path) > FILE_BYTES:
        raise OSError(0, f"larger than {FILE_BYTES} bytes")
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def sourced(text: str) -> list[str]:
    """Files that a shell file takes in, as far as it names them plainly."""
    named = [word for line in text.splitlines() if line.lstrip()[:1] != "#" for word in SOURCES.findall(line)]
    plain = [re.sub(r"^\$(?:HOME|\{HOME\})/", "~/", word) for word in named]
    return [path for word in plain if "$" not in word for path in unfold([word]) if os.path.isabs(path)]


def unfold(patterns: list[str]) -> list[str]:
    home = glob.escape(os.path.expanduser("~"))
    return [path for each in patterns for path in sorted(glob.glob(re.sub(r"^~(?=/)", lambda _: home, each)))]


def shown(path: str) -> str:
    home = os.path.expanduser("~") + "/"
    return "~/" + path[len(home) :] if path.startswith(home) else path


def open_to_others(path: str) -> bool:
    """Whether users beside this one and root may read it, as far as modes tell; folders above it can bar the way."""
    if not os.stat(path).st_mode & stat.S_IROTH:
        return False
    above = os.path.dirname(os.path.realpath(path))
    while above != "/" and os.stat(above).st_mode & stat.S_IXOTH:
        above = os.path.dirname(above)
    return above == "/"


def shells() -> dict[str, list[str]]:
    """How people and launchers start a shell: what it is called here, and the start of its command line."""
    found: dict[str, list[str]] = {}
    own = os.environ.get("SHELL") or pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    wanted = [
        (own, "-c"),
        ("bash", "-c"),
        ("bash", "-lc"),
        ("bash", "-ic"),
        ("sh", "-lc"),
        ("zsh", "-lc"),
        ("zsh", "-ic"),
        (own, "-lc"),
    ]
    for name, flag in wanted:
        path = shutil.which(name)
        if path is not None:
            found.setdefault(f"{os.path.basename(name)} {flag}", [path, flag])
    return found


def shell(argv: list[str], limit_s: float) -> tuple[bytes, str]:
    """What a shell prints that only says its environment. It starts from what sshd always gives, and no more."""
    kept = {name: os.environ[name] for name in (*SHELL_NEEDS, *SHELL_HEEDS) if name in os.environ}
    words = [sys.executable, "-I", "-S", "-c", TELL, MARK.decode().strip() + " "]
    command = "exec " + " ".join(shlex.quote(word) for word in words)
    return bounded([*argv, command], {**kept, "TERM": "dumb"}, limit_s, MARK)


def told(output: tuple[bytes, str], interest: Interest) -> tuple[dict[str, str], Json]:
    """A shell's whole environment, which stays here, and what there is to say of it."""
    noise, _, said = output[0].partition(MARK)
    try:
        env: dict[str, str] = json.loads(said.split(b"\n")[0])
    except ValueError:
        return {}, {"names": {}, "traps": [], "ended": output[1] or "said nothing", "noise": len(noise)}
    return env, {**interest.found(env), "ended": "", "noise": len(noise)}


def bounded(argv: list[str], env: dict[str, str], limit_s: float, until: bytes | None = None) -> tuple[bytes, str]:
    """What a command prints, and why it was not waited for to the end. It is killed with its whole group.

    With `until` it stops at the end of the line that begins so, and its input
    stays open, as sshd's does; else its input is empty.
    """
    out, deadline, ended = b"", time.monotonic() + limit_s, ""
    feed, errors = (subprocess.PIPE, subprocess.DEVNULL) if until else (subprocess.DEVNULL, subprocess.STDOUT)
    try:
        process = subprocess.Popen(
            argv, env=env, stdin=feed, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    except OSError as error:
        return out, error.strerror or "cannot be started"
    pipe = process.stdout.fileno()  # type: ignore[union-attr]  # opened with a pipe
    while len(out) < OUTPUT_BYTES and (until is None or b"\n" not in out.partition(until)[2]):
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            ended = "waits for input" if reads_input(process.pid) else "slow"
            break
        data = os.read(pipe, 65536)
        if not data:
            break
        out += data
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the second is macOS's word for a group that ended
        os.killpg(process.pid, signal.SIGKILL)  # before it is waited for: its number is its own until then
    for stream in filter(None, (process.stdin, process.stdout)):
        stream.close()
    process.wait()
    return out, ended


def reads_input(pid: int) -> bool:
    """Whether the process sits in a read of its standard input, as far as the kernel says so."""
    expected = READ_OF_INPUT.get(platform.machine())
    try:
        with open(f"/proc/{pid}/syscall") as file:
            return expected is not None and file.read().startswith(expected)
    except OSError:
        return False
