"""Sends commits to a remote by git as its user would, but never over somebody's work, and with no hook of theirs."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from overnight.failures import OvernightError
from overnight.git import Repo
from overnight.printable import one_line
from overnight.spec import is_url

INHERITED = (
    *("HOME", "USER", "LOGNAME", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "SSL_CERT_FILE"),
    *("http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "ALL_PROXY", "all_proxy"),
)
"""What a push may see of its user's environment: where their git and SSH look for what lets them in."""

_PUSH_S = 900.0
_ASK = "overnight_push_token"
# answers git alone, and only for the host that the token is for
_ASKPASS = f"""#!/bin/sh
case "$1" in
  *"://$overnight_push_host'"*|*"@$overnight_push_host'"*) ;;
  *) exit 1 ;;
esac
case "$1" in
  Username*) printf '%s\\n' "$overnight_push_user" ;;
  *) printf '%s\\n' "${_ASK}" ;;
esac
"""
_SSH = "-oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=20 -oServerAliveInterval=15"
_MENDS = (
    ("host key verification failed", "compare the host's fingerprint, then add its line of ssh-keyscan to known_hosts"),
    ("permission denied (", "let this user's SSH key in there, or load it into the agent"),
    ("authentication failed", "give deliver.forge a token that may push, or save one in a credential helper"),
    ("could not read username", "name deliver.forge with a token that may push, or save one in a credential helper"),
    ("could not read password", "name deliver.forge with a token that may push, or save one in a credential helper"),
    ("protected branch", "that branch is protected there: give deliver.branch another name, or allow it there"),
    (
        "hook declined",
        "the remote's own hook refuses it: read its words, or give deliver.branch another name",
    ),
    ("does not appear to be a git repository", "see deliver.remote; `git remote -v` shows what there is"),
    ("no such remote", "see deliver.remote; `git remote -v` shows what there is"),
    ("could not resolve host", "see that this machine reaches the remote"),
    ("connection", "see that this machine reaches the remote"),
    ("no end after", "see that this machine reaches the remote"),
)


@dataclass(frozen=True)
class Login:
    """A token for git over HTTPS, and the one host it is shown to."""

    host: str
    user: str
    token: str


class Refused(OvernightError):
    """It is not delivered. `went_on`: since somebody went on with what is there under that name."""

    def __init__(self, problem: str, mend: str, went_on: bool = False) -> None:
        super().__init__(f"{problem}. {mend}")
        self.problem, self.mend, self.went_on = problem, mend, went_on


def address(repo: Repo, remote: str, env: Mapping[str, str]) -> str:
    """The URL behind a remote's name; a URL stays what it is.

    Raises:
        Refused: there is no such remote.
    """
    if is_url(remote) or remote.startswith("/"):
        return remote
    code, out, said = repo.attempt("remote", "get-url", "--push", remote, env=_env(repo, env), timeout_s=60)
    if code != 0:
        raise _refused(said, remote)
    return out.strip()


def shown(url: str) -> str:
    """A URL without what lets one in."""
    return one_line(re.sub(r"://[^/@\s]*@", "://", url))


def push(
    repo: Repo, url: str, branch: str, sha: str, ours: str, env: Mapping[str, str], login: Login | None = None
) -> None:
    """Make `branch` at `url` be `sha`; again changes nothing. Blocks, up to 30 minutes.

    A branch that somebody went on with is left alone, also when they do so in
    this very moment. The user's own configuration of git holds, but for hooks.

    Args:
        ours: Pattern of refs here; a commit that one of them points at was put there by us and may be replaced.

    Raises:
        Refused: with why, and the mend.
    """
    ref = f"refs/heads/{branch}"
    with _environment(repo, url, env, login) as whole:
        at = _at(repo, url, ref, whole)
        if at == sha:
            return
        if at and not _may_replace(repo, at, sha, ours):
            problem = f"{branch} is at {at[:12]} there, which is not ours"
            raise Refused(problem, "take what is there into account, or give deliver.branch another name", went_on=True)
        lease = f"--force-with-lease={ref}:{at}"
        flags = ("--porcelain", "--no-verify", "--no-follow-tags", "--no-signed", "--recurse-submodules=no", lease)
        code, out, said = repo.attempt("push", *flags, "--", url, f"{sha}:{ref}", env=whole, timeout_s=_PUSH_S)
    if code != 0:
        why = next((line for line in out.splitlines() if line.startswith("!")), "")
        raise _refused(f"{why} {said}", url, went_on="stale info" in why)


def _at(repo: Repo, url: str, ref: str, env: Mapping[str, str]) -> str:
    """Where the branch is; empty when it is not there."""
    code, out, said = repo.attempt("ls-remote", "--heads", "--", url, ref, env=env, timeout_s=120)
    if code != 0:
        raise _refused(said, url)
    return next((line.split("\t")[0] for line in out.splitlines() if line.endswith(f"\t{ref}")), "")


def _may_replace(repo: Repo, at: str, sha: str, ours: str) -> bool:
    if not repo.has(at):
        return False
    return bool(repo.run("for-each-ref", "--points-at", at, ours)) or repo.is_ancestor(at, sha)


def _refused(said: str, url: str, *, went_on: bool = False) -> Refused:
    words = shown(" ".join(said.split())[:500])
    lower = words.lower()
    mend = next((mend for sign, mend in _MENDS if sign in lower), f"see that `git push` works to {shown(url)}")
    return Refused(words or "git said nothing", mend, went_on)


def _env(repo: Repo, env: Mapping[str, str]) -> dict[str, str]:
    """The user's own git, without a prompt, and SSH without a question."""
    ours = {"PATH": repo.search_path, "LANG": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    return {**{name: env[name] for name in INHERITED if name in env}, **ours}


@contextmanager
def _environment(repo: Repo, url: str, env: Mapping[str, str], login: Login | None) -> Iterator[dict[str, str]]:
    """What a push gets. A token is in the environment of git alone, and asked for by a program that knows its host."""
    whole = _env(repo, env)
    code, own, _ = repo.attempt("config", "core.sshCommand", env=whole, timeout_s=60)
    ssh = whole.get("GIT_SSH_COMMAND") or (own.strip() if code == 0 else "") or "ssh"
    whole["GIT_SSH_COMMAND"] = f"{ssh} {_SSH}"
    parts = urlsplit(url)
    if login is None or parts.netloc.rpartition("@")[2] != login.host or not _is_private(url):
        yield whole
        return
    with tempfile.TemporaryDirectory(prefix="overnight-push-") as scratch:
        ask = Path(scratch, "ask")
        ask.write_text(_ASKPASS, encoding="utf-8")
        ask.chmod(stat.S_IRWXU)
        ours = {"overnight_push_host": login.host, "overnight_push_user": login.user, _ASK: login.token}
        # an empty helper forgets those that are configured: the token is neither mixed up with another nor kept
        own_only = {
            "credential.helper": "",
            "credential.useHttpPath": "false",
            "http.followRedirects": "false",
        }
        pairs = {f"GIT_CONFIG_KEY_{i}": name for i, name in enumerate(own_only)}
        pairs |= {f"GIT_CONFIG_VALUE_{i}": value for i, value in enumerate(own_only.values())}
        yield {**whole, **ours, **pairs, "GIT_CONFIG_COUNT": str(len(own_only)), "GIT_ASKPASS": os.fspath(ask)}


def _is_private(url: str) -> bool:
    """Whether a token may go there: over TLS, or to this very machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))
