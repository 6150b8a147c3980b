"""What the commands refuse before they ask any Prefect API, and how they read what is typed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.hosts import wished
from flows.terminal import plainly
from overnight.failures import BadInput

KEY = Path("~/.ssh/id_ed25519")
SECRET = "fake-key-SECRET"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["credentials", "add", "rehearsl", "--from-stdin"], "mend: Did you mean rehearsal"),
        (["credentials", "add", "rehearsal"], "mend: Use --from-stdin"),
        (["credentials", "add", "rehearsal", "--from-stdin", "--expires-on", "2020-01-31"], "expired on 2020-01-31"),
        (["credentials", "add", "rehearsal", "--from-stdin", "--expires-on", "31.1.2999"], "mend: Write YYYY-MM-DD"),
        (["credentials", "check", "rehearsal", "--model", "rehearsal-larg"], "Did you mean rehearsal-large"),
        (
            ["credentials", "check", "rehearsal", "--harness", "goose"],
            "Known: claude-code, codex, copilot, opencode, pi, scripted",
        ),
        (["credentials", "check", "zai", "--lock", "/nonexistent"], "/nonexistent"),
        (["credentials", "rotate", "z.ai", "--from-stdin"], "mend: Did you mean zai"),
        (["hosts", "add", "Box", "127.0.0.1"], "'Box' is no name"),
        (["hosts", "add", "box", "ssh://127.0.0.1"], "mend: Write [USER@]ADDRESS[:PORT]"),
        (["hosts", "add", "box", "127.0.0.1:99999"], "--port"),
        (["hosts", "add", "box", "127.0.0.1", "--path", "bin"], "write folders in full"),
        (["hosts", "add", "box", "127.0.0.1", "--key-file", "/nonexistent"], "no file /nonexistent"),
    ],
)
def test_what_cannot_be_is_refused_in_two_lines(args: list[str], said: str) -> None:
    done = CliRunner().invoke(app, args, input=f"{SECRET}\n")
    assert done.exit_code == 2, done.output
    assert said in done.output
    problem, mend = done.output.splitlines()
    assert mend.startswith("  mend: ")
    assert "SECRET" not in problem + mend


@pytest.mark.parametrize(
    ("target", "user", "address", "port"),
    [
        ("10.0.0.5", "me", "10.0.0.5", 22),
        ("dev@box.lan", "dev", "box.lan", 22),
        ("dev@box.lan:2222", "dev", "box.lan", 2222),
        ("fe80::1", "me", "fe80::1", 22),
        ("dev@fe80::1", "dev", "fe80::1", 22),
        ("dev@[fe80::1]:2222", "dev", "fe80::1", 2222),
        ("[::1]", "me", "::1", 22),
    ],
)
def test_a_target_is_read(target: str, user: str, address: str, port: int) -> None:
    found = wished(target, "me", key_file=KEY)
    assert (found.user, found.address, found.port) == (user, address, port)


@pytest.mark.parametrize("target", ["", "@", "dev@", "a b", "ssh://box", "box:", "box:ssh", "a@b@c", "[box]", "box/x"])
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(BadInput) as caught:
        wished(target, "me", key_file=KEY)
    assert caught.value.field == "TARGET"


def test_a_command_gives_the_signals_back() -> None:
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]  # a runner may ignore them
    try:
        with plainly():
            assert [signal.getsignal(number) for number in numbers] == [signal.default_int_handler] * 2
        assert [signal.getsignal(number) for number in numbers] == [signal.SIG_DFL] * 2
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
