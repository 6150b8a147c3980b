"""Reads YAML as users write it: text in, plain data out, every fault with its line and column.

Plain data is what JSON knows: mappings, lists, text, numbers, booleans, null.
A date stays the text it was written as.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from overnight.failures import BadInput

# far beyond any file written by hand; stops aliases that hold themselves or grow without end
MAX_DEPTH, MAX_VALUES = 32, 100_000


class _Plain(SafeConstructor):
    """What the safe loader makes, without the types that JSON has no word for."""


_CORE = ("null", "bool", "int", "float", "seq", "map", "str")
_Plain.yaml_constructors = {
    **{tag: SafeConstructor.yaml_constructors[tag] for tag in (f"tag:yaml.org,2002:{name}" for name in _CORE)},
    "tag:yaml.org,2002:timestamp": SafeConstructor.construct_yaml_str,
    None: SafeConstructor.construct_undefined,
}


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark, line ends as `\\n`.

    Raises:
        BadInput: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        why = error.strerror or "unknown reason"
        raise BadInput(str(path), "file", f"cannot be read: {why}", "Check the path") from error
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
        raise BadInput(str(path), "file", problem, "Save it as UTF-8") from error


def parse(path: Path, text: str) -> Any:
    """The one document in `text`; None when there is nothing but comments.

    Args:
        path: Only for messages.

    Raises:
        BadInput: not YAML, a key stands twice, more than one document, or data that is not plain.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Plain
    yaml.composer.warn_double_anchors = False  # legal, and the warning is a page long
    try:
        data = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"
        # a duplicate key's message goes on with both values, which may be nobody's business
        problem = (error.problem or "is not YAML").partition("\n")[0].partition(" with value ")[0].removeprefix("but ")
        raise BadInput(str(path), place, problem, "Mend the YAML there") from None
    except ReaderError as error:
        place = f"line {text.count(chr(10), 0, error.position) + 1}"
        raise BadInput(str(path), place, "holds a control character", "Remove it") from None
    except RecursionError:
        raise _too_deep(path) from None
    except (YAMLError, ValueError, KeyError) as error:  # the last two: !!int on what is no number, !!bool likewise
        raise BadInput(str(path), "file", f"is not YAML: {error}", "Mend the YAML") from None
    _check(path, data)
    return data


def _check(path: Path, data: Any) -> None:
    """Refuse keys that are no text, text that no operating system takes, and aliases that never end."""
    left, seen = [(data, "", 1)], 0
    while left:
        value, place, depth = left.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            raise _too_deep(path)
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str) or not fits(key):
                    raise BadInput(str(path), place or "file", f"the key {key!r} is no text", "Put it in quotes")
            left += [(part, f"{place}.{key}".lstrip("."), depth + 1) for key, part in value.items()]
        elif isinstance(value, list):
            left += [(part, f"{place}[{i}]", depth + 1) for i, part in enumerate(value)]
        elif isinstance(value, str) and not fits(value):
            raise BadInput(str(path), place or "file", "holds a NUL or half a surrogate pair", "Remove it")


def fits(text: str) -> bool:
    """Whether a text can be an argument, a path or a file's content."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _too_deep(path: Path) -> BadInput:
    return BadInput(str(path), "file", "nests without end, or grows beyond reason through aliases", "Write it plainly")
