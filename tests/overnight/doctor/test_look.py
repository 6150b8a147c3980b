"""Hosts with things planted in them, looked at over a real sshd."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from overnight import lockfile
from overnight.doctor.look import look
from overnight.doctor.records import Finding, HostLook, Shadow
from overnight.failures import HostError
from overnight.spec import HostSpec
from overnight.station import Station
from tests.sshd import free_port, serving, wait_until

pytestmark = pytest.mark.full
LOCK = lockfile.load()
KEY, OTHER = "zai-key-0123456789abcdef.planted", "another-key-fedcba9876543210"
SECRETS = (KEY, OTHER, "login-planted", "secret-of-a-hook", "elsewhere.example", "cat k", "proxy-word")
"""What is planted and may never come back, in every test."""
CLAUDE = next(v for v, known in LOCK.harnesses["claude-code"].versions.items() if known.status == "good")
BAD = next(v for v, known in LOCK.harnesses["claude-code"].versions.items() if known.status == "bad")
TOKEN, API_KEY, URL = "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"
WANTED = {URL: frozenset({"https://api.z.ai/api/anthropic"})}


class Box:
    """A host with a home of its own, to plant things in and to look at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.path = [str(Path(sys.executable).parent)]

    def plant(self, name: str, text: str, mode: int = 0o600) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def plant_claude(self, folder: str, version: str) -> str:
        self.plant(f"{folder}/claude", f"#!/bin/sh\necho '{version} (Claude Code)'\n", 0o755)
        return str(self.home / folder)

    def look(
        self, *, env: str = "", shell_s: float = 60, sshd_config: str = "/nonexistent", home: Path | None = None
    ) -> HostLook:
        with self.station(home or self.home, env) as station:
            ask, answers = station.remote.script, []

            def overheard(path: Path, order: Mapping[str, Any], timeout_s: float = 60.0) -> dict[str, Any]:
                answers.append(ask(path, order, timeout_s))
                return answers[-1]

            station.remote.script = overheard  # type: ignore[method-assign]  # all that comes over the wire is judged
            found = look(station, LOCK, {"zai": KEY}, WANTED, shell_s=shell_s, sshd_config=sshd_config)
        everything = json.dumps(answers) + found.model_dump_json()
        assert len(answers) == 2
        assert not [each for each in SECRETS if each in everything]
        return found

    @contextmanager
    def station(self, home: Path, env: str = "") -> Iterator[Station]:
        with serving(self.folder, f'SetEnv "HOME={home}" {env}') as server:
            spec = {**server.described(self.folder / "runs", "", 1), "path": self.path, "python": sys.executable}
            station = Station("box", HostSpec(**spec), lambda _: None)
            try:
                yield station
                wait_until(lambda: _quiet(station, server.pid), 60)
            finally:
                station.close()


def _quiet(station: Station, pid: int) -> bool:
    """Whether nobody whom the look started lives on, once the connection is gone."""
    station.close()
    return psutil.Process(pid).children() == []


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def by_id(found: HostLook) -> Mapping[str, Finding]:
    return {each.id: each for each in found.findings}


def shadow(found: HostLook, source: str, name: str) -> Shadow:
    return next(each for each in found.shadows if source in each.source and each.name == name)


class TestShadows:
    def test_a_key_at_the_top_of_bashrc_is_named_with_file_line_and_owner(self, box: Box) -> None:
        box.plant(
            ".bashrc",
            f"# mine\nexport {API_KEY}='{KEY}'\n[ -z \"$PS1\" ] && return\nexport {URL}=https://x.example/v1\n",
        )
        found = box.look()
        line = shadow(found, "~/.bashrc", API_KEY)
        assert (line.line, line.same_as, line.wins) == (2, "the key of zai", "shell-only")
        assert "built from nothing" in line.ignored
        assert "a command over ssh" in shadow(found, "bash -ic", API_KEY).source
        assert "claude-code" in shadow(found, "bash -ic", API_KEY).harnesses
        wrong = by_id(found)["key-in-wrong-variable"]
        assert (wrong.weight, wrong.where) == ("note", "~/.bashrc:2")
        assert "x-api-key" in wrong.seen
        assert TOKEN in wrong.seen

    def test_what_only_some_shells_have_says_which(self, box: Box) -> None:
        box.plant(".profile", f"export {TOKEN}={OTHER}\n")
        box.plant(".bashrc", f'case $- in *i*) export {URL}="https://api.z.ai/api/anthropic";; esac\n')
        found = box.look()
        login = shadow(found, "bash -lc", TOKEN)
        assert "sh -lc" in login.source
        assert "bash -ic" not in login.source
        assert login.same_as == ""
        assert shadow(found, "bash -ic", URL).source == "bash -ic"
        assert shadow(found, "bash -ic", URL).same_as == "the lock's value"

    def test_a_key_under_any_name_and_in_quotes_is_recognised(self, box: Box) -> None:
        box.plant(".profile", f'export MY_SECRET="Bearer {KEY}"\n. ~/.more\n')
        box.plant(".more", f"export {TOKEN}='\"{KEY}\"'\n", 0o644)
        found = box.look()
        assert shadow(found, "bash -lc", "MY_SECRET").same_as.startswith("the key of zai, with quotes")
        assert shadow(found, "~/.more", TOKEN).line == 1
        assert by_id(found)["quoted-key"].where == "~/.more:1"

    def test_both_key_variables_and_a_wrong_address_are_the_locks_traps(self, box: Box) -> None:
        box.plant(
            ".profile", f"export {TOKEN}={KEY} {API_KEY}={OTHER}\nexport {URL}=https://api.z.ai/api/anthropic/v1/\n"
        )
        found = by_id(box.look())
        assert found["both-key-variables"].weight == "note"
        assert found["v1-in-base-url"].where == "~/.profile:2"
        assert found["v1-in-base-url"].mend == LOCK.known_bad["v1-in-base-url"].mend

    def test_settings_and_logins_of_agents_are_read_by_name_only(self, box: Box) -> None:
        env = {TOKEN: KEY, URL: "https://elsewhere.example"}
        hooks = {"PreToolUse": [{"command": "curl secret-of-a-hook"}]}
        box.plant(".claude/settings.json", json.dumps({"env": env, "hooks": hooks, "apiKeyHelper": "cat k"}, indent=1))
        box.plant(".claude/.credentials.json", json.dumps({"claudeAiOauth": {"accessToken": "login-planted"}}), 0o644)
        box.plant(".config/goose/secrets.yaml", f"{API_KEY}: {OTHER}\n")
        box.plant(".config/goose/custom_providers/mine.json", "{}")
        box.plant(".local/share/opencode/auth.json", json.dumps({"zai": {"type": "api", "key": KEY}}))
        box.plant(".codex/config.toml", 'model_provider = "zai"\n[model_providers.zai]\nbase_url = "https://x"\n')
        box.plant(".netrc", f"machine api.example login me password {OTHER}\n")
        box.plant(".gitconfig", f'[url "https://me:{OTHER}@git.example/"]\n\tinsteadOf = https://git.example/\n')
        found = box.look()
        settings = shadow(found, "~/.claude/settings.json", TOKEN)
        assert (settings.line, settings.same_as, settings.wins) == (3, "the key of zai", "over-environment")
        assert settings.ignored == "a run has a HOME of its own"
        names = {(each.source, each.name) for each in found.shadows}
        assert {
            ("~/.claude/settings.json", "hooks"),
            ("~/.claude/settings.json", "apiKeyHelper"),
            ("~/.claude/.credentials.json", "claudeAiOauth"),
            ("~/.config/goose/secrets.yaml", API_KEY),
            ("~/.config/goose/custom_providers/", "mine.json"),
            ("~/.local/share/opencode/auth.json", "zai.key"),
            ("~/.codex/config.toml", "base_url"),
            ("~/.netrc", "machine api.example"),
            ("~/.gitconfig", "url.insteadof"),
        } <= names
        findings = by_id(found)
        assert findings["settings-file-wins"].weight == "note"
        assert findings["login-file-replaces-key"].where == "~/.claude/.credentials.json"

    def test_a_login_that_others_may_read(self, box: Box) -> None:
        for folder in [box.home, *list(box.home.parents)[:-1]]:
            if folder.stat().st_mode & 0o001 == 0:
                folder.chmod(folder.stat().st_mode | 0o001)
        box.plant(".profile", f"export {TOKEN}={OTHER}\n", 0o644)
        box.plant(".netrc", "machine a.example password x\n", 0o600)
        open_ = [each for each in box.look().findings if each.id == "login-readable"]
        assert [(each.where, TOKEN in each.seen) for each in open_] == [("~/.profile", True)]

    def test_what_sshd_sets_is_traced_to_its_line(self, box: Box) -> None:
        config = box.folder / "etc_sshd_config"
        lines = [
            f"SetEnv {TOKEN}={OTHER}",
            "MaxSessions 3",
            "MaxStartups 2:30:10",
            "Match User x",
            f"ForceCommand {OTHER}",
        ]
        config.write_text("\n".join(lines))
        found = box.look(env=f"{TOKEN}={OTHER}", sshd_config=str(config))
        assert shadow(found, "a command over ssh", TOKEN).source == "a command over ssh"
        assert found.facts["sshd_maxsessions"] == "3"
        assert {"sshd-max-sessions", "sshd-max-startups", "sshd-force-command"} <= set(by_id(found))

    def test_a_proxy_that_runs_do_not_get_is_a_warning(self, box: Box) -> None:
        box.plant(
            ".profile", "export https_proxy=http://me:proxy-word@proxy.example:3128 NODE_OPTIONS=--require=/x.js\n"
        )
        found = box.look()
        assert by_id(found)["network-settings-left-out"].weight == "warning"
        assert by_id(found)["network-settings-left-out"].where == "~/.profile:1"
        assert by_id(found)["code-by-variable"].seen.startswith("NODE_OPTIONS is set in ")


class TestTroubles:
    def test_a_login_file_that_waits_for_input_holds_nothing_up(self, box: Box) -> None:
        box.plant(".profile", "read answer\n")
        found = box.look(shell_s=3)
        hung = [each for each in found.findings if each.id == "shell-hangs"]
        assert {each.where for each in hung} >= {"bash -lc", "sh -lc"}
        assert any("bash -lc" in each for each in found.not_looked_at)

    def test_a_login_file_that_prints_is_named(self, box: Box) -> None:
        box.plant(".bashrc", "echo welcome\n")
        assert "prints" in by_id(box.look())["login-file-prints"].id

    def test_a_broken_file_is_named_and_not_quoted(self, box: Box) -> None:
        box.plant(".claude.json", '{"primaryApiKey": "' + KEY)
        found = box.look()
        broken = by_id(found)["file-broken"]
        assert (broken.where, broken.weight) == ("~/.claude.json", "note")

    def test_a_home_that_is_not_there_is_said_and_not_made(self, box: Box) -> None:
        missing = box.folder / "missing"
        found = box.look(home=missing)
        assert by_id(found)["home-missing"].weight == "error"
        assert not missing.exists()

    def test_a_host_that_cannot_be_reached_is_the_callers(self, box: Box) -> None:
        with box.station(box.home) as station:
            nobody = Station("box", station.spec.model_copy(update={"port": free_port()}), lambda _: None)
            with pytest.raises(HostError):
                look(nobody, LOCK, {}, {})
            nobody.close()


class TestAgents:
    def test_every_copy_is_found_and_the_one_that_runs_use(self, box: Box) -> None:
        box.path = [box.plant_claude("tools", CLAUDE), *box.path]
        box.plant_claude(".nvm/versions/node/v22.1.0/bin", "2.0.0")
        hidden = box.plant_claude("somewhere", "1.0.0")
        box.plant(".profile", f'PATH="$PATH:{hidden}"\n')
        (box.home / ".local/bin").mkdir(parents=True)
        (box.home / ".local/bin/claude").symlink_to(box.home / "tools/claude")
        found = box.look()
        mine = [each for each in found.installed if each.harness == "claude-code"]
        assert [(each.version, each.chosen) for each in mine if each.chosen] == [(CLAUDE, True)]
        assert {each.version for each in mine} == {CLAUDE, "2.0.0", "1.0.0"}
        assert len(mine) == 3
        assert "2.0.0" in by_id(found)["several-copies"].seen

    def test_an_agent_where_runs_do_not_look_is_missing(self, box: Box) -> None:
        folder = box.plant_claude(".local/bin", CLAUDE)
        missing = next(f for f in box.look().findings if f.id == "harness-missing" and f.where == "claude-code")
        assert missing.weight == "error"
        assert missing.mend == f"add {folder} to the host's path"

    def test_a_version_that_is_known_bad(self, box: Box) -> None:
        box.path = [box.plant_claude("tools", BAD), *box.path]
        bad = by_id(box.look())["version-that-hangs"]
        assert (bad.weight, BAD in bad.seen) == ("error", True)


def test_the_numbers_of_a_host(box: Box) -> None:
    facts = box.look().facts
    assert facts["home"] == str(box.home)
    for name in ("home_free_bytes", "memory_bytes", "open_files", "cpus", "home_file_system", "git", "user"):
        assert facts[name], name
    assert abs(float(facts["clock_ahead_s"] or 0)) < 60
