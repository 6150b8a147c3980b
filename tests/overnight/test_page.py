"""`report.html` as a text; tests/pages looks at it in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from overnight.morning import markdown, summary
from overnight.page import html
from overnight.printable import fenced
from tests.overnight.samples import full_run, report, run
from tests.pages.evenings import HOSTILE, mixed_night


class Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_element_is_closed_and_nothing_is_fetched_or_run(tmp_path: Path) -> None:
    seen = Seen(html(mixed_night(tmp_path, HOSTILE), tmp_path))
    assert seen.open == []
    assert not {"script", "img", "iframe", "link", "object", "embed", "form", "base"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name in ("src", "style", "srcset")]
    assert all(value.startswith(("#task-", "runs/")) for name, value in seen.attributes if name == "href")


def test_a_report_of_an_older_version_is_shown_without_its_rates(tmp_path: Path) -> None:
    old = report(full_run(), run(task_id="b", attempt=0, run_id="", state="skipped"))
    text = html(old, tmp_path)
    assert "Whose success rate" not in text
    assert "/state/runs/x" in text, "a log elsewhere is named, not linked"


def test_what_a_terminal_would_obey_is_written_out_everywhere(tmp_path: Path) -> None:
    night = mixed_night(tmp_path, HOSTILE)
    for text in (html(night, tmp_path), markdown(night), summary(night, tmp_path, None)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert r"\x1b]0;owned\x07" in text


def test_a_block_of_code_holds_whatever_fence_is_in_it() -> None:
    assert fenced("a\n````\nb") == ["`````", "a\n````\nb", "`````"]
    assert fenced("a") == ["```", "a", "```"]
