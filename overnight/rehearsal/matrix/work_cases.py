"""What goes wrong on the host, in the agent's own set-up, and in the work."""

from __future__ import annotations

from overnight.failures import FailureKind
from overnight.rehearsal.matrix.case import COMMITTED, Case, Change, Place, any_of
from overnight.rehearsal.model import Say, Shell, Wait, Write

_K = FailureKind
_STUCK, _NONE = any_of(_K.TOOL_STUCK), any_of(_K.NO_COMMIT)
_START = any_of(_K.SILENT_START, _K.TOOL_STUCK)
_BROKEN = "{not what: it [was"
_MUTE_SERVER = '{"mcpServers":{"mute":{"command":"sleep","args":["86400"]}}}'
_CLOSING = Say("Done: the greeting is committed.")
_WRITTEN = Write("greeting.txt", "hello\n")
_COMMIT = "git add -A && git commit -qm 'Add a greeting'"
# such agents take a long command into the background, or end it, and go on: that leaves a run without a commit
_GOES_ON = dict.fromkeys(("codex", "copilot", "qwen"), _STUCK | _NONE)

_NO_IDENTITY = (
    "unset GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL; "
    "git config user.useConfigOnly true; " + _COMMIT
)
_HOOK = (
    "mkdir .hooks && printf '#!/bin/sh\\nsleep 86400\\n' > .hooks/pre-commit && chmod +x .hooks/pre-commit && "
    "git config core.hooksPath .hooks && " + _COMMIT
)
_BUSY = """python3 -c 'import time
end = time.time() + {busy_s}
while time.time() < end: sum(range(1000000)); time.sleep(0.1)'"""
_FORKS = """python3 -c 'import os, time
try:
    for _ in range(200):
        os.fork() or time.sleep(86400)
except OSError as error:
    print(error, flush=True)
time.sleep(86400)'"""
# once it is under the limit; the write touches every page
_MEMORY = (
    "while ! grep -q overnight- /proc/self/cgroup; do sleep 0.2; done; "
    "python3 -c 'b = bytearray(4 << 30); b[::4096] = bytes(len(b) // 4096)'"
)
_NOT_FIRST = "echo 0 > /proc/self/oom_score_adj; "  # the agent itself has the highest score then
_LOCKED = "flock .lock sleep 86400 & sleep 1; flock .lock true"
_FILL = "dd if=/dev/zero of=filling bs=1M 2>&1 | tail -n 1; echo hello > greeting.txt && " + _COMMIT

_DENIED = {
    "claude-code": Change(without=("--allowedTools",), flags=("--allowedTools=Read",)),
    "codex": Change(without=("--dangerously-bypass",), flags=("--sandbox=read-only",)),
    "copilot": Change(without=("--allow-all-tools",)),
    "goose": Change(swaps=(("auto", "approve"),)),
    "opencode": Change(without=("--auto",), swaps=(('"share"', '"permission":{"bash":"ask"},"share"'),)),
    "qwen": Change(without=("--yolo",)),
}
_ANYWHERE = {"copilot": Change(flags=("--allow-all-paths",))}  # else it looks at the paths in a command
_SERVERS = {
    "claude-code": Change(flags=(f"--mcp-config={_MUTE_SERVER}",)),
    "codex": Change(flags=('--config=mcp_servers.mute={command="sleep",args=["86400"]}',)),
    "copilot": Change(
        flags=(
            '--additional-mcp-config={"mcpServers":{"mute":'
            '{"type":"local","command":"sleep","args":["86400"],"tools":["*"]}}}',
        )
    ),
    "goose": Change(flags=("--with-extension=sleep 86400",)),
    "opencode": Change(swaps=(('"share"', '"mcp":{"mute":{"type":"local","command":["sleep","86400"]}},"share"'),)),
    "qwen": Change(without=("--allowed-mcp-server-names",), flags=(f"--mcp-config={_MUTE_SERVER}",)),
}
_START_HOOK = '--settings={"hooks":{"SessionStart":[{"hooks":[{"type":"command","command":"sleep 86400"}]}]}}'
_BROKEN_FILES = {
    "claude-code": Change(files={".claude.json": _BROKEN}),
    "codex": Change(files={".codex/config.toml": _BROKEN}),
    "copilot": Change(files={".copilot/config.json": _BROKEN, ".copilot/mcp-config.json": _BROKEN}),
    "goose": Change(files={".config/goose/config.yaml": _BROKEN}),
    "opencode": Change(files={".config/opencode/opencode.json": _BROKEN}),
    "pi": Change(files={".pi/agent/models.json": _BROKEN}),
    "qwen": Change(files={".qwen/overnight.json": _BROKEN}),
}


def _set_up() -> tuple[Case, ...]:
    """What the agent is started with."""
    return (
        Case(
            "no-permission",
            "its tools are not allowed",
            any_of(_K.PERMISSION_DENIED),
            changes=_DENIED,
            only=frozenset(_DENIED),
            # the one tells nothing of it, the other does not offer the tool to the model
            instead=dict.fromkeys(("codex", "qwen"), any_of(_K.PERMISSION_DENIED) | _NONE),
        ),
        Case(
            "mcp-hangs",
            "a server of its tools never answers",
            _START,
            spared=True,
            silent=True,
            shown="MCP|mute|sleep",
            changes=_SERVERS,
            only=frozenset(_SERVERS),
        ),
        Case(
            "start-hook-hangs",
            "its own hook at the start never ends",
            _START,
            spared=True,
            silent=True,
            shown="hook|sleep",
            changes={"claude-code": Change(flags=(_START_HOOK,))},
            only=frozenset({"claude-code"}),
        ),
        Case(
            "corrupt-config",
            "a file of settings that cannot be read",
            any_of(_K.HARNESS_USAGE),
            spared=True,
            changes=_BROKEN_FILES,
        ),
    )


def _host() -> tuple[Case, ...]:
    memory = any_of(_K.OUT_OF_MEMORY)
    killed = any_of(_K.HARNESS_CRASHED)
    return (
        Case(
            "no-git",
            "the agent finds no git",
            any_of(_K.HOST_UNFIT, _K.NO_COMMIT),
            shown="git.*not found|no git",
            place=Place.NO_GIT,
            steps=(*COMMITTED, _CLOSING),
            instead={"codex": any_of()},  # its commands run in a login shell, with the PATH of the system
        ),
        Case(
            "read-only-home",
            "its HOME cannot be written",
            any_of(_K.HOST_UNFIT, _K.HARNESS_CRASHED, _K.HARNESS_USAGE),
            spared=True,
            shown="[Rr]ead-only|EROFS",
            place=Place.READ_ONLY_HOME,
        ),
        Case(
            "disk-full",
            "the disk fills up",
            any_of(_K.DISK_FULL),
            place=Place.SMALL_DISK,
            steps=(Shell(_FILL), _CLOSING),
        ),
        Case(
            "oom-command",
            "the kernel ends its command for want of memory",
            memory | _NONE,
            shown="want of memory",
            place=Place.SMALL_MEMORY,
            changes=_ANYWHERE,
            steps=(Shell(_MEMORY), _CLOSING),
        ),
        Case(
            "oom",
            "the kernel ends the agent for want of memory",
            memory,
            place=Place.SMALL_MEMORY,
            changes=_ANYWHERE,
            steps=(Shell(_NOT_FIRST + _MEMORY), _CLOSING),
        ),
        Case(
            "killed", "somebody kills it", killed, shown="signal 9|SIGKILL", killed=True, steps=(Wait(20), *COMMITTED)
        ),
    )


def _commands() -> tuple[Case, ...]:
    """What the agent's own command does."""

    def stuck(name: str, says: str, shown: str, command: str) -> Case:
        return Case(name, says, _STUCK, shown=shown, silent=True, steps=(Shell(command), _CLOSING), instead=_GOES_ON)

    return (
        Case("busy", "a command that works for longer than silence may last", steps=(Shell(_BUSY), *COMMITTED)),
        stuck("hook-hangs", "a hook of git that never ends", "sleep|pre-commit", _HOOK),
        stuck(
            "stdin-waiter",
            "a command that waits for input",
            r"input|stdin|read\(0\)",
            "mkfifo .never && cat 0<> .never",
        ),
        stuck(
            "lock-waiter",
            "a command that waits for a lock",
            "lock",
            "flock .lock sleep 86400 & sleep 1; flock .lock true",
        ),
        stuck("sleeper", "a command that sleeps", "sleep", "python3 -c 'import time; time.sleep(86400)'"),
        stuck("fork-bomb", "a command that forks and forks", "process|fork", _FORKS),
        Case(
            "gigabyte",
            "a command that prints 1 GB",
            any_of(_K.LOG_LIMIT),
            spared=True,
            steps=(Shell("head -c 1000000000 /dev/zero | tr '\\0' x"), *COMMITTED),
        ),
        Case(
            "bad-utf-8",
            "a command that prints no UTF-8",
            steps=(Shell("printf '\\377\\376\\200\\303(\\n'"), *COMMITTED),
        ),
    )


def _work() -> tuple[Case, ...]:
    again = Shell("git status --short")
    return (
        Case("forgets", "it writes and forgets to commit", _NONE, steps=(_WRITTEN, Say("Done."))),
        Case("claims", "it does nothing and says it did", _NONE, steps=(_CLOSING,)),
        Case(
            "no-identity",
            "git knows no author",
            any_of(_K.NO_COMMIT, _K.HOST_UNFIT),
            shown="identity|tell me who you are|user.name",
            steps=(_WRITTEN, Shell(_NO_IDENTITY), _CLOSING),
        ),
        Case(
            "another-branch",
            "it commits to a branch of its own",
            steps=(_WRITTEN, Shell(f"git checkout -qb mine && {_COMMIT}")),
        ),
        Case(
            "and-back",
            "it commits to a branch of its own and goes back",
            _NONE,
            spared=True,
            shown="mine|branch|refs/",
            steps=(_WRITTEN, Shell(f"git checkout -qb mine && {_COMMIT} && git checkout -q -")),
        ),
        Case(
            "rewrites",
            "it rewrites what was there",
            _NONE,
            shown="rewr|histor|not.*descend|other",
            steps=(_WRITTEN, Shell("git add -A && git commit -q --amend -m 'Mine alone'"), _CLOSING),
        ),
        Case("loops", "it does the same thing for ever", any_of(_K.LOOPING), steps=(again,) * 400),
    )


CASES = (*_set_up(), *_host(), *_commands(), *_work())
