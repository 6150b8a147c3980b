"""Files of NAME=value lines: .env files, systemd units and their EnvironmentFiles."""

from __future__ import annotations

import re
from collections.abc import Iterator

from overnight.launchers import shell
from overnight.launchers.steps import Dropped, Place, Ref, Script, Set, Source, Step, Text, Unset, Value

_LINE = re.compile(rb"^[ \t]*(export[ \t]+)?([A-Za-z_]\w*)[ \t]*=[ \t]*([^\r\n]*)", re.MULTILINE)
_DIRECTIVE = re.compile(rb"^[ \t]*(\w+)[ \t]*=[ \t]*((?:[^\\\r\n]|\\.|\\\r?\n)*)", re.MULTILINE)
_WORD = re.compile(rb"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|([^\s\"']+)", re.DOTALL)
_REFERENCE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}|\$(\w+)")
_SPECIFIER = re.compile(r"%[a-zA-Z]")
_EXEC_PREFIX = b"@-:+!"


def read_dotenv(text: Text) -> Script:
    """A .env file. Whoever reads it, `export` in front of a name is taken for nothing."""
    return Script(text, [_set(text, match, refers=True) for match in _assignments(text)])


def read_environment_file(text: Text) -> Script:
    """A systemd EnvironmentFile: no `export`, no references. See systemd.exec(5)."""
    steps: list[Step] = []
    for match in _assignments(text):
        if not match[1]:
            steps.append(_set(text, match, refers=False))
            continue
        export = Place(text, match.start(1), match.end(1))
        why = "systemd takes `export NAME` for the name, which is none, and passes the line over"
        steps.append(Dropped(match[2].decode(), Place(text, *match.span(2)), why, "systemd.exec(5)", (export, "")))
    return Script(text, steps, expands=False)


def _assignments(text: Text) -> Iterator[re.Match[bytes]]:
    return _LINE.finditer(text.data)


def _set(text: Text, match: re.Match[bytes], refers: bool) -> Set:
    raw, start = match[3], match.start(3)
    quote = raw[:1] if raw[:1] in (b"'", b'"') else b""
    end = raw.find(quote, 1) if quote else -1
    if end > 0:
        inner, stop = raw[1:end].decode("utf-8", "replace"), start + end + 1
    else:
        plain = re.split(rb"\s+#", raw)[0].rstrip() if refers else raw.rstrip()
        inner, stop = plain.decode("utf-8", "replace"), start + len(plain)
    parts = parts_of(inner) if refers and quote != b"'" else (inner,)
    return Set(match[2].decode(), Value(parts, Place(text, start, stop)), Place(text, *match.span(2)), empty="")


def parts_of(text: str) -> tuple[str | Ref | None, ...]:
    """Text with `$NAME` and `${NAME:-default}` in it."""
    parts: list[str | Ref | None] = []
    at = 0
    for match in _REFERENCE.finditer(text):
        if match.start() > at:
            parts.append(text[at : match.start()])
        parts.append(Ref(match[1] or match[3]) if match[2] is None else None)
        at = match.end()
    if at < len(text) or not parts:
        parts.append(text[at:])
    return tuple(parts)


def read_unit(text: Text) -> Script:
    """A systemd unit or a drop-in. Files win over lines, whatever their order; commands come last."""
    sets: list[Step] = []
    files: list[Step] = []
    unsets: list[Step] = []
    commands: list[Step] = []
    for match in _DIRECTIVE.finditer(text.data):
        name, start, raw = match[1].decode(), match.start(2), match[2]
        if name == "Environment":
            sets = [*sets, *_pairs(text, start, raw)] if raw.strip() else []
        elif name == "EnvironmentFile":
            place = Place(text, start + raw.startswith(b"-"), match.end(2))
            files.append(Source(Value((_SPECIFIER.sub("\0", place.raw.strip()),), place), "environment-file"))
        elif name == "UnsetEnvironment":
            unsets += [
                Unset(word[0].decode(), Place(text, start + word.start(), start + word.end()))
                for word in re.finditer(rb"[A-Za-z_]\w*", raw)
            ]
        elif name.startswith("ExecStart"):
            begin = start + len(raw) - len(raw.lstrip(_EXEC_PREFIX))
            commands += shell.read_part(Value((None,), Place(text, begin, match.end(2))))
    return Script(text, [*sets, *files, *unsets, *commands], expands=False)


def _pairs(text: Text, start: int, raw: bytes) -> Iterator[Set]:
    """The assignments of one `Environment=`; a `$` in them is a dollar sign."""
    for word in _WORD.finditer(raw):
        group = next(i for i in (1, 2, 3) if word[i] is not None)
        name, equals, value = word[group].partition(b"=")
        if not equals or not re.fullmatch(rb"[A-Za-z_]\w*", name):
            continue
        begin = start + word.start(group)
        at = begin + len(name) + 1
        end = start + word.end(group)
        inner = re.sub(rb"\\(.)", rb"\1", value).decode("utf-8", "replace")
        if group == 3 and word.end() < len(raw) and raw[word.end() : word.end() + 1] in (b'"', b"'"):
            continue  # A="b": the quote begins in the middle of a word
        parts = (None,) if _SPECIFIER.search(inner) else (inner,)
        yield Set(name.decode(), Value(parts, Place(text, at, end)), Place(text, begin, at - 1), empty="")
