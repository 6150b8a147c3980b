"""Pushing to real remotes: files, SSH and HTTP; somebody's work is never pushed over."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.git import Repo
from overnight.push import Login, Refused, address, push, shown
from tests import sshd
from tests.overnight.forges import TOKEN, FakeForge, forge
from tests.overnight.nights import commit, git, make_repo

OURS = "refs/overnight/*.t.*/head"
ENV = {"HOME": "/nonexistent"}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "repo")


@pytest.fixture
def remote(tmp_path: Path, repo: Repo) -> Path:
    path = tmp_path / "remotes" / "app.git"
    path.mkdir(parents=True)
    git(path, "init", "-q", "--bare", "-b", "main")
    git(path, "config", "http.receivepack", "true")
    git(repo.path, "push", "-q", str(path), "main")
    git(repo.path, "remote", "add", "origin", str(path))
    return path


@pytest.fixture
def tip(repo: Repo, remote: Path) -> str:
    return ours(repo, "b1", "new.txt")


def ours(repo: Repo, batch: str, name: str, text: str = "text\n") -> str:
    """A commit on the base, at home as a collected run leaves it."""
    git(repo.path, "checkout", "-q", "--detach", "main")
    sha = commit(repo.path, name, text)
    git(repo.path, "checkout", "-q", "main")
    git(repo.path, "update-ref", f"refs/overnight/{batch}.t.1/head", sha)
    return sha


def at(remote: Path, branch: str) -> str:
    return git(remote, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")


@pytest.fixture(params=["file", "path"])
def url(request: pytest.FixtureRequest, remote: Path) -> str:
    return f"file://{remote}" if request.param == "file" else str(remote)


def test_commits_come_to_a_branch_there_and_again_changes_nothing(repo: Repo, remote: Path, tip: str, url: str) -> None:
    push(repo, url, "night/t", tip, OURS, ENV)
    assert at(remote, "night/t") == tip
    push(repo, url, "night/t", tip, OURS, ENV)
    assert at(remote, "night/t") == tip


def test_our_own_older_push_is_replaced(repo: Repo, remote: Path, tip: str) -> None:
    push(repo, str(remote), "night/t", tip, OURS, ENV)
    newer = ours(repo, "b2", "other.txt")
    push(repo, str(remote), "night/t", newer, OURS, ENV)
    assert at(remote, "night/t") == newer


def test_a_branch_somebody_went_on_with_is_left_alone(repo: Repo, remote: Path, tip: str, tmp_path: Path) -> None:
    push(repo, str(remote), "night/t", tip, OURS, ENV)
    git(tmp_path, "clone", "-q", "-b", "night/t", str(remote), "theirs")
    theirs = commit(tmp_path / "theirs", "mine.txt")
    git(tmp_path / "theirs", "push", "-q")
    for sha in (tip, ours(repo, "b2", "other.txt")):
        with pytest.raises(Refused) as refused:
            push(repo, str(remote), "night/t", sha, OURS, ENV)
        assert refused.value.went_on
        assert theirs[:12] in refused.value.problem
        assert at(remote, "night/t") == theirs


def test_a_branch_that_moves_in_this_very_moment_is_left_alone(
    repo: Repo, remote: Path, tip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(repo, str(remote), "night/t", tip, OURS, ENV)
    newer = ours(repo, "b2", "other.txt")
    theirs = git(remote, "rev-parse", "main")
    attempt = Repo.attempt

    def and_meanwhile(self: Repo, *args: str, **how: object) -> tuple[int, str, str]:
        if args[0] == "push":
            git(remote, "update-ref", "refs/heads/night/t", theirs)
        return attempt(self, *args, **how)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(Repo, "attempt", and_meanwhile)
    with pytest.raises(Refused) as refused:
        push(repo, str(remote), "night/t", newer, OURS, ENV)
    assert refused.value.went_on
    assert at(remote, "night/t") == theirs


def test_what_the_remote_refuses_is_told_in_its_words(repo: Repo, remote: Path, tip: str) -> None:
    hook = remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'GH006: Protected branch update failed' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(Refused) as refused:
        push(repo, str(remote), "night/t", tip, OURS, ENV)
    assert "GH006: Protected branch update failed" in refused.value.problem
    assert "protected there" in refused.value.mend
    assert not refused.value.went_on


def test_hooks_of_the_users_repository_do_not_run(repo: Repo, remote: Path, tip: str, tmp_path: Path) -> None:
    hook = repo.path / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\nexit 1\n")
    hook.chmod(0o755)
    push(repo, str(remote), "night/t", tip, OURS, ENV)
    assert not (tmp_path / "ran").exists()


def test_a_remote_is_found_by_name(repo: Repo, remote: Path, tip: str) -> None:
    assert address(repo, "origin", ENV) == str(remote)
    with pytest.raises(Refused, match="No such remote"):
        address(repo, "upstream", ENV)


def test_a_remote_that_is_gone_is_named(repo: Repo, tip: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        push(repo, f"file://{tmp_path}/gone.git", "night/t", tip, OURS, ENV)
    assert "gone.git" in refused.value.problem
    assert "git remote -v" in refused.value.mend


def test_no_command_hides_in_a_url(repo: Repo, tip: str, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        push(repo, f"ext::sh -c touch% {tmp_path / 'ran'}", "night/t", tip, OURS, ENV)
    assert not (tmp_path / "ran").exists()


def test_a_url_is_shown_without_what_lets_one_in() -> None:
    assert shown("https://me:secret@h/x and https://tok@h/y") == "https://h/x and https://h/y"


@pytest.mark.full
class TestOverSsh:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[sshd.Sshd]:
        (tmp_path / "sshd").mkdir()
        with sshd.serving(tmp_path / "sshd") as server:
            yield server

    def ssh(self, server: sshd.Sshd, known: Path) -> dict[str, str]:
        command = f"ssh -F none -i {server.key_file} -oIdentitiesOnly=yes -oUserKnownHostsFile={known}"
        return {**ENV, "GIT_SSH_COMMAND": command}

    def test_a_host_whose_key_is_known_takes_it(
        self, repo: Repo, remote: Path, tip: str, server: sshd.Sshd, tmp_path: Path
    ) -> None:
        known = tmp_path / "known"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        url = f"ssh://127.0.0.1:{server.port}{remote}"
        push(repo, url, "night/t", tip, OURS, self.ssh(server, known))
        assert at(remote, "night/t") == tip

    def test_the_repositorys_own_way_over_ssh_is_heeded(
        self, repo: Repo, remote: Path, tip: str, server: sshd.Sshd, tmp_path: Path
    ) -> None:
        known = tmp_path / "known"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        git(repo.path, "config", "core.sshCommand", self.ssh(server, known)["GIT_SSH_COMMAND"])
        push(repo, f"ssh://127.0.0.1:{server.port}{remote}", "night/t", tip, OURS, ENV)
        assert at(remote, "night/t") == tip

    def test_a_host_nobody_knows_is_not_trusted(
        self, repo: Repo, remote: Path, tip: str, server: sshd.Sshd, tmp_path: Path
    ) -> None:
        with pytest.raises(Refused) as refused:
            push(repo, f"ssh://127.0.0.1:{server.port}{remote}", "t", tip, OURS, self.ssh(server, tmp_path / "none"))
        assert "Host key verification failed" in refused.value.problem
        assert "fingerprint" in refused.value.mend
        assert not (tmp_path / "none").exists()

    def test_a_key_that_is_not_let_in_is_named(
        self, repo: Repo, remote: Path, tip: str, server: sshd.Sshd, tmp_path: Path
    ) -> None:
        known = tmp_path / "known"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        (tmp_path / "sshd" / "authorized_keys").write_text("")
        with pytest.raises(Refused) as refused:
            push(repo, f"ssh://127.0.0.1:{server.port}{remote}", "t", tip, OURS, self.ssh(server, known))
        assert "Permission denied" in refused.value.problem
        assert "SSH key" in refused.value.mend


class TestOverHttp:
    @pytest.fixture
    def fake(self, remote: Path) -> Iterator[FakeForge]:
        with forge("github", remote.parent) as fake:
            yield fake

    def login(self, fake: FakeForge, token: str = TOKEN) -> Login:
        return Login(fake.url.removeprefix("http://"), "x-access-token", token)

    def test_the_token_lets_in_and_is_kept_nowhere(self, repo: Repo, remote: Path, tip: str, fake: FakeForge) -> None:
        push(repo, f"{fake.url}/app.git", "night/t", tip, OURS, ENV, self.login(fake))
        assert at(remote, "night/t") == tip
        assert f"x-access-token:{TOKEN}" in fake.git_logins
        kept = [p for p in repo.path.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
        assert kept == []

    def test_a_token_is_in_no_command_line(
        self, repo: Repo, tip: str, fake: FakeForge, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str] = []
        run = subprocess.run

        def watched(argv: list[str], **how: Any) -> Any:
            seen.extend(map(os.fspath, argv))
            return run(argv, **how)

        monkeypatch.setattr(subprocess, "run", watched)
        push(repo, f"{fake.url}/app.git", "night/t", tip, OURS, ENV, self.login(fake))
        assert "push" in seen
        assert not [word for word in seen if TOKEN in word]

    def test_a_wrong_token_is_named_and_not_shown(self, repo: Repo, tip: str, fake: FakeForge) -> None:
        with pytest.raises(Refused) as refused:
            push(repo, f"{fake.url}/app.git", "t", tip, OURS, ENV, self.login(fake, "wrong-token-123456"))
        assert "token that may push" in refused.value.mend
        assert "wrong-token-123456" not in str(refused.value)

    def test_a_token_is_for_its_own_host_alone(self, repo: Repo, tip: str, fake: FakeForge) -> None:
        with pytest.raises(Refused):
            push(repo, f"{fake.url}/app.git", "t", tip, OURS, ENV, Login("forge.example", "x-access-token", TOKEN))
        assert not [login for login in fake.git_logins if TOKEN in login]
