"""A shell's words as values, and what a line of words really starts: env, timeout, ssh and the like taken off."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from overnight.launchers.steps import Clear, Launch, Login, Place, Program, Ref, Scope, Set, Source, Step, Unset, Value

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
SHELLS = frozenset({"bash", "sh", "zsh", "dash", "ksh", "ash"})
# with the options that take a word of their own
_PLAIN_WRAPPERS = {
    "nohup": (), "setsid": (), "command": (), "builtin": (), "time": (), "nice": ("-n",), "ionice": ("-c", "-n"),
    "timeout": ("-k", "-s"), "stdbuf": (), "chronic": (), "caffeinate": (), "unbuffer": (), "exec": ("-a",),
    "flock": ("-w", "-E"), "eatmydata": (),
}  # fmt: skip
_PLAIN_WORDS = {"timeout": 1, "flock": 1}
_SSH_TAKE_WORD = frozenset("BbcDEeFIiJLlmOopQRSWw")
_SUDO_TAKE_WORD = frozenset({"-u", "-g", "-h", "-p", "-C", "-r", "-t", "-T", "-U", "-D", "-R"})
_PACKAGE_RUNNERS = frozenset({"npx", "bunx", "pnpx"})
_CONTAINERS = frozenset({"docker", "podman", "nerdctl"})
_CONTAINER_FLAGS = re.compile(
    r"-(?:[itdP]+|-rm|-init|-privileged|-interactive|-tty|-detach|-read-only|-no-healthcheck)$"
)

Parse = Callable[[Value], Program]
"""Reads a word that is itself a shell script."""


@dataclass
class Unwrapper:
    """Takes the wrappers off one command. `unknown` marks what nobody can read from the file."""

    parse: Parse
    place: Place
    own: list[Step]
    replaces: bool = False

    def program(self, words: Sequence[Value]) -> Program:
        """The steps that this line of words amounts to."""
        while words:
            name = _base(words[0])
            if name in _PLAIN_WRAPPERS:
                self.replaces = self.replaces or name == "exec"
                words = _past_options(words[1:], _PLAIN_WRAPPERS[name])[_PLAIN_WORDS.get(name, 0) :]
            elif name == "env":
                words = self._env(words[1:])
            elif name in ("sudo", "doas"):
                words = self._sudo(words[1:])
            elif name in _PACKAGE_RUNNERS:
                words = _past_options(words[1:], ("-p", "--package"))
                break
            else:
                return self._ends(name, words)
        return self._launch(words)

    def _ends(self, name: str, words: Sequence[Value]) -> Program:
        if name in SHELLS:
            return self._shell(words)
        if name == "su":
            return self._su(words)
        if name == "ssh":
            return self._ssh(words)
        if name == "eval" and len(words) == 2:
            return self.parse(words[1])
        if name == "tmux" and words[1:] and " " in (words[-1].literal or ""):
            return [Scope(self.parse(words[-1]))]
        if name in _CONTAINERS and words[1:] and words[1].literal in ("run", "exec"):
            return self._container(words[2:])
        return self._launch(words)

    def _launch(self, words: Sequence[Value]) -> Program:
        return [Launch(tuple(words), self.place, tuple(self.own), self.replaces)]

    def _inside(self, program: Program) -> Program:
        return [Scope((*self.own, *program))]

    def _env(self, words: Sequence[Value]) -> Sequence[Value]:
        while words:
            text = words[0].literal or ""
            if text in ("-", "-i", "--ignore-environment"):
                self.own.append(Clear(words[0].place))
            elif text in ("-u", "--unset") and len(words) > 1:
                words = words[1:]
                self.own.append(Unset(words[0].literal or "", words[0].place))
            elif text.startswith("--unset="):
                self.own.append(Unset(text.removeprefix("--unset="), _tail(words[0], len("--unset="))))
            elif re.fullmatch(r"-u\w+", text):
                self.own.append(Unset(text[2:], _tail(words[0], 2)))
            elif text in ("-C", "--chdir") or not text.startswith("-"):
                if text in ("-C", "--chdir"):
                    words = words[1:]
                elif (pair := assignment(words[0])) is not None:
                    self.own.append(pair)
                else:
                    break
            words = words[1:]
        return words

    def _sudo(self, words: Sequence[Value]) -> Sequence[Value]:
        kept = False
        while words and (words[0].literal or "").startswith("-"):
            text = words[0].literal or ""
            kept = kept or text.startswith(("-E", "--preserve-env"))
            words = words[2:] if text in _SUDO_TAKE_WORD else words[1:]
        if not kept:  # what sudoers lets through is not in the file
            self.own.extend((Clear(self.place), unknown(self.place)))
        while words and (pair := assignment(words[0])) is not None:
            self.own.append(pair)
            words = words[1:]
        return words

    def _shell(self, words: Sequence[Value]) -> Program:
        rest, script = words[1:], False
        while rest and (text := rest[0].literal or "").startswith("-") and text != "-":
            if text == "--login" or re.fullmatch(r"-[a-z]*l[a-z]*", text):
                self.own.append(Login(rest[0].place))
            script = script or bool(re.fullmatch(r"-[a-z]*c[a-z]*", text))
            rest = rest[2:] if text in ("-o", "--rcfile", "--init-file") else rest[1:]
        if script and rest:
            return self._inside(self.parse(rest[0]))
        return self._launch(words)

    def _su(self, words: Sequence[Value]) -> Program:
        literals = [word.literal for word in words]
        for flag in ("-c", "--command"):
            if flag in literals[:-1]:
                if "-" in literals or "-l" in literals or "--login" in literals:
                    self.own.extend((Clear(self.place), unknown(self.place), Login(self.place)))
                return self._inside(self.parse(words[literals.index(flag) + 1]))
        return self._launch(words)

    def _ssh(self, words: Sequence[Value]) -> Program:
        rest = words[1:]
        while rest and (text := rest[0].literal or "").startswith("-"):
            rest = rest[2:] if len(text) == 2 and text[1] in _SSH_TAKE_WORD else rest[1:]
        remote = rest[1:]
        if not remote:
            return []
        there: list[Step] = [Clear(self.place), unknown(self.place)]
        if len(remote) == 1:
            return [Scope((*there, *self.parse(remote[0])))]
        return [Scope((*there, *Unwrapper(self.parse, self.place, []).line(remote)))]

    def line(self, words: Sequence[Value]) -> Program:
        """As `program`, for words that may begin with assignments."""
        while words and (pair := assignment(words[0])) is not None:
            self.own.append(pair)
            words = words[1:]
        return self.program(words)

    def _container(self, words: Sequence[Value]) -> Program:
        self.own.extend((Clear(self.place), unknown(self.place)))  # the image has an environment of its own
        while words and (text := words[0].literal or "-").startswith("-"):
            flag, _, rest = text.partition("=")
            if flag in ("-e", "--env") and (rest or len(words) > 1):
                given = _shift(words[0], len(flag) + 1) if rest else words[1]
                if (pair := assignment(given)) is not None:
                    self.own.append(pair)
                elif given.literal:
                    self.own.append(Set(given.literal, Value((Ref(given.literal),), given.place), given.place))
            elif flag == "--env-file" and (rest or len(words) > 1):
                self.own.append(Source(_shift(words[0], len(flag) + 1) if rest else words[1], "dotenv"))
            words = words[1:] if rest or _CONTAINER_FLAGS.fullmatch(text) else words[2:]
        return self._launch(words[1:])


def unknown(place: Place) -> Source:
    """Something that nobody can read from the file happens to the environment here."""
    return Source(Value((None,), place), "")


def assignment(word: Value) -> Set | None:
    """`NAME=value` as one word, or None for any other word."""
    head = word.parts[0] if word.parts else None
    match = _ASSIGNMENT.match(head) if isinstance(head, str) else None
    if match is None or not word.place.raw.lstrip("\"'").startswith(match.group()):
        return None
    quoted = len(word.place.raw) - len(word.place.raw.lstrip("\"'"))
    start = word.place.start + quoted
    name = Place(word.place.text, start, start + match.end() - 1)
    value = _shift(word, match.end())
    if quoted:  # the quotes are around the whole word
        value = Value(value.parts, Place(word.place.text, start + match.end(), word.place.end - quoted))
    return Set(match.group()[:-1], value, name, empty="")


def _shift(word: Value, count: int) -> Value:
    """The word without its first `count` characters, which are literal and not quoted."""
    head = word.parts[0]
    assert isinstance(head, str)  # noqa: S101  # the callers have matched these characters in it
    rest = (head[count:],) if head[count:] or len(word.parts) == 1 else ()
    return Value((*rest, *word.parts[1:]), Place(word.place.text, word.place.start + count, word.place.end))


def _tail(word: Value, count: int) -> Place:
    return Place(word.place.text, word.place.start + count, word.place.end)


def _base(word: Value) -> str:
    return (word.literal or "").rpartition("/")[2]


def _past_options(words: Sequence[Value], taking: Sequence[str]) -> Sequence[Value]:
    while words and (text := words[0].literal or "").startswith("-"):
        words = words[2:] if text in taking else words[1:]
    return words
