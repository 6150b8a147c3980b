"""Getting an agent CLI, with small programs that stand where npm, pip and the CLI would."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from overnight.failures import FailureError, FailureKind
from overnight.rehearsal import agents
from overnight.rehearsal.agents import Agent, obtain

CLAUDE = "node_modules/@anthropic-ai/claude-code-linux-x64/claude"
WHEEL = "claude_agent_sdk/_bundled/claude"


def program(path: Path, *lines: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def installer(path: Path, binary: str, version: str = "2.1.330", flag: str = "--prefix") -> str:
    """Does what an installer does: puts a command below the directory after `flag`; notes how it was called."""
    return program(
        path,
        f'echo "$@" >> {path}.calls; env > {path}.env',
        f'while [ "$1" != "{flag}" ]; do shift; done',
        f'mkdir -p "$2/$(dirname {binary})"; printf \'#!/bin/sh\\necho "{version} (Claude Code)"\\n\' > "$2/{binary}"',
        f'chmod +x "$2/{binary}"',
    )


def get(directory: Path, npm: str | None, pip: str | None = None, told: list[str] | None = None) -> Agent:
    progress = [] if told is None else told
    environment = {"HTTPS_PROXY": "http://proxy.example:1"}
    return obtain("claude-code", directory, npm=npm, pip=pip, environment=environment, progress=progress.append)


def calls(tool: str) -> Sequence[str]:
    path = Path(f"{tool}.calls")
    return path.read_text().splitlines() if path.exists() else []


def test_npm_comes_first_and_the_command_runs(tmp_path: Path) -> None:
    npm, told = installer(tmp_path / "tools/npm", CLAUDE), list[str]()
    pip = installer(tmp_path / "tools/pip", WHEEL, flag="--target")
    agent = get(tmp_path / "agents", npm, pip, told)
    assert agent == Agent(tmp_path / "agents/bin/claude", "2.1.330", "npm")
    assert os.access(agent.path, os.X_OK)
    assert "--ignore-scripts" in calls(npm)[0]
    assert calls(npm)[0].endswith("@anthropic-ai/claude-code@2.1.330")
    assert calls(pip) == []
    assert told[0] == "getting @anthropic-ai/claude-code@2.1.330 with npm"


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    npm = installer(tmp_path / "npm", CLAUDE)
    get(tmp_path / "agents", npm)
    assert get(tmp_path / "agents", npm).how == "already there"
    assert get(tmp_path / "agents", None).how == "already there"
    assert len(calls(npm)) == 1


def test_a_link_that_was_lost_is_made_again_without_a_download(tmp_path: Path) -> None:
    npm = installer(tmp_path / "npm", CLAUDE)
    get(tmp_path / "agents", npm).path.unlink()
    assert get(tmp_path / "agents", npm).how == "npm"
    assert len(calls(npm)) == 1


def test_a_program_for_node_is_installed_as_locked_and_started_by_the_node_beside_npm(tmp_path: Path) -> None:
    script = "node_modules/@qwen-code/qwen-code/cli.js"
    npm = program(
        tmp_path / "tools/npm",
        'while [ "$1" != --prefix ]; do last=$1; shift; done',
        'cp "$2/package.json" "$2/package-lock.json" "$(dirname $0)"',
        f'echo "$last" > "$(dirname $0)/asked"; mkdir -p "$2/$(dirname {script})"; echo 0.15.10 > "$2/{script}"',
    )
    program(tmp_path / "tools/node", 'cat "$1"; [ "$2" = --version ] || echo "$2"')
    agent = obtain("qwen", tmp_path / "agents", npm=npm, pip=None, environment={}, progress=list[str]().append)
    assert agent == Agent(tmp_path / "agents/bin/qwen", "0.15.10", "npm")
    assert (tmp_path / "tools/asked").read_text() == "ci\n"
    assert json.loads((tmp_path / "tools/package.json").read_text())["dependencies"] == {
        "@qwen-code/qwen-code": "0.15.10"
    }
    done = subprocess.run([agent.path, "a b"], env={}, capture_output=True, check=True, text=True, timeout=30)
    assert done.stdout == "0.15.10\na b\n"


@pytest.mark.parametrize("lock", sorted(Path(agents.__file__).parent.glob("*.npm-lock.json")), ids=lambda p: p.name)
def test_a_lock_names_every_package_by_its_hash_and_no_registry(lock: Path) -> None:
    packages = json.loads(lock.read_bytes())["packages"]
    assert all(each["integrity"].startswith("sha512-") for name, each in packages.items() if name)
    assert "://" not in lock.read_text()


def test_without_npm_the_wheel_is_taken(tmp_path: Path) -> None:
    pip = installer(tmp_path / "pip", WHEEL, flag="--target")
    assert get(tmp_path / "agents", None, pip).how == "pip"
    assert calls(pip)[0].endswith("claude-agent-sdk==0.2.187")


def test_an_npm_that_fails_is_told_and_pip_tried(tmp_path: Path) -> None:
    npm, told = program(tmp_path / "npm", "echo 'npm error 404 not found' >&2; exit 1"), list[str]()
    pip = installer(tmp_path / "pip", WHEEL, flag="--target")
    assert get(tmp_path / "agents", npm, pip, told).how == "pip"
    assert "claude-code: not from npm: npm ended with 1: npm error 404 not found" in told


def test_the_installer_sees_only_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-inherited")
    npm = installer(tmp_path / "npm", CLAUDE)
    get(tmp_path / "agents", npm)
    env = dict(line.split("=", 1) for line in Path(f"{npm}.env").read_text().splitlines())
    assert set(env) - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "HOME", "HTTPS_PROXY"}
    assert env["HOME"].startswith(str(tmp_path / "agents"))


def test_nothing_half_made_is_left_behind(tmp_path: Path) -> None:
    npm = program(tmp_path / "npm", "mkdir -p half/made; exit 1")
    with pytest.raises(FailureError):
        get(tmp_path / "agents", npm)
    assert list((tmp_path / "agents").iterdir()) == []


def test_the_wrong_version_is_refused(tmp_path: Path) -> None:
    npm = installer(tmp_path / "npm", CLAUDE, version="2.1.197")
    with pytest.raises(FailureError) as caught:
        get(tmp_path / "agents", npm)
    assert "version 2.1.197 instead of 2.1.330" in caught.value.failure.evidence[0].seen


@pytest.mark.parametrize(
    ("npm", "pip", "seen"),
    [
        (None, None, ["npm: npm is not installed", "pip: pip is not installed"]),
        ("/nowhere/npm", None, ["npm: /nowhere/npm cannot be started: No such file or directory"]),
    ],
)
def test_when_neither_can_be_had_both_are_named(
    tmp_path: Path, npm: str | None, pip: str | None, seen: list[str]
) -> None:
    with pytest.raises(FailureError) as caught:
        get(tmp_path / "agents", npm, pip)
    failure = caught.value.failure
    assert failure.kind is FailureKind.HARNESS_MISSING
    assert [e.seen for e in failure.evidence][: len(seen)] == seen
    assert "claude 2.1.330" in failure.remedy


def test_goose_has_no_wheel(tmp_path: Path) -> None:
    with pytest.raises(FailureError) as caught:
        obtain("goose", tmp_path, npm=None, pip="/usr/bin/pip", environment={}, progress=lambda _: None)
    assert [e.seen for e in caught.value.failure.evidence] == [
        "npm: npm is not installed",
        "pip: no package of it there",
    ]
