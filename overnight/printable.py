"""What an agent, a model or a tool wrote, made harmless for whoever looks at it."""

from __future__ import annotations

import re

# what moves a cursor, rings, or turns text around; an agent prints what it likes
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_ENDS = re.compile("[\n\t\u2028\u2029]")
_FENCE = re.compile("`{3,}")


def safe(text: str) -> str:
    """The text with everything a terminal would obey written out, e.g. `\\x1b`. Line ends and tabs stay."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def fenced(text: str) -> list[str]:
    """Lines of Markdown that show the text as a block of code, whatever fences it holds itself."""
    longest = max((len(found) for found in _FENCE.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return [fence, text, fence]


def one_line(text: str | bytes) -> str:
    """The text on a line of its own: whatever would end it, or move a cursor, or is no UTF-8, is written out."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return _LINE_ENDS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), safe(text))
