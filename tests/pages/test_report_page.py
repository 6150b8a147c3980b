"""`report.html` in Debian's Chromium: wide, on a phone, in the dark, and written half by an enemy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser as BrowserProgram
from playwright.sync_api import Page, expect

from overnight.page import html
from tests.pages.browser import PICTURES, windows
from tests.pages.evenings import HOSTILE, mixed_night

pytestmark = pytest.mark.full
WIDE, PHONE = (1280, 900), (390, 844)
README_PICTURE = Path(__file__).with_name("the-morning.png")
MOST_BYTES = 150_000
_COLOURS: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")


@pytest.fixture(scope="module")
def program() -> Iterator[BrowserProgram]:
    with windows() as made:
        yield made


class Opened:
    """A report in a window, and everything the window wanted or complained of meanwhile."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")

    def shot(self, name: str, *, whole: bool = True) -> Path:
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{name}.png"
        self.page.screenshot(path=path, full_page=whole)
        return path

    def colour(self, name: str) -> str:
        found: str = self.page.evaluate(f"getComputedStyle(document.body).{name}")
        return found


def opened(
    program: BrowserProgram,
    folder: Path,
    *,
    size: tuple[int, int] = WIDE,
    colours: Literal["light", "dark"] = "light",
    hostile: Sequence[str] = (),
) -> Opened:
    path = folder / "report.html"
    path.write_text(html(mixed_night(folder, hostile), folder), encoding="utf-8")
    width, height = size
    page = program.new_page(
        viewport={"width": width, "height": height}, color_scheme=colours, is_mobile=size == PHONE, has_touch=True
    )
    return Opened(page, path)


def test_it_is_one_file_without_a_complaint_that_says_the_morning_first(
    program: BrowserProgram, tmp_path: Path
) -> None:
    report = opened(program, tmp_path)
    picture = report.shot("morning-first", whole=False)
    if not README_PICTURE.exists():  # delete it to have it made anew
        shutil.copy(picture, README_PICTURE)
    report.shot("morning-wide")
    assert report.asked == [(tmp_path / "report.html").as_uri()]
    assert report.complaints == []
    headings = report.page.locator("h1, h2").all_inner_texts()
    assert headings == [
        "tonight: 9 succeeded, 7 failed, 4 skipped",
        "What came home",
        "What did not, and who must act",
        "Whose success rate it is",
        "Routes",
        "Tasks",
    ]
    expect(report.page.get_by_text("All 7 failures and none of the 9 successes were on host box")).to_be_visible()
    expect(report.page.locator("#act pre").first).to_contain_text("overnight logs")


def test_a_phone_shows_it_without_sideways_scrolling(program: BrowserProgram, tmp_path: Path) -> None:
    report = opened(program, tmp_path, size=PHONE)
    report.shot("morning-phone-first", whole=False)
    report.shot("morning-phone")
    assert report.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    assert report.page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


def test_it_is_dark_where_that_is_wished(program: BrowserProgram, tmp_path: Path) -> None:
    light, dark = (opened(program, tmp_path, colours=each) for each in _COLOURS)
    dark.shot("morning-dark")
    assert light.colour("backgroundColor") == "rgb(255, 255, 255)"
    assert dark.colour("backgroundColor") == "rgb(13, 17, 23)"
    assert light.colour("color") != dark.colour("color")


def test_every_attempt_is_drawn_with_its_end_and_its_retries(program: BrowserProgram, tmp_path: Path) -> None:
    page = opened(program, tmp_path).page
    tries = page.locator("#task-fix-parser-0 figure")
    expect(tries).to_have_count(2)
    first = tries.first
    expect(first.locator("rect.run, rect.queue, rect.start")).to_have_count(3)
    expect(first.locator("rect.quiet")).to_have_count(1)
    expect(first.locator("line.retry")).to_have_count(1)
    expect(first.locator("rect.end.failed")).to_have_count(1)
    expect(first.locator("figcaption")).to_contain_text(
        "run 8 min 00 s, verify 3.0 s, quiet for 7 min 00 s at most, 1 retry"
    )
    boxes = [page.locator(f"#task-fix-parser-0 figure >> nth={n} >> rect.run").bounding_box() for n in (0, 1)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"], "the second attempt comes after the first"


def test_what_an_enemy_wrote_is_text(program: BrowserProgram, tmp_path: Path) -> None:
    report = opened(program, tmp_path, hostile=HOSTILE)
    report.shot("morning-hostile")
    assert report.page.title() == "tonight: 9 succeeded, 7 failed, 4 skipped"
    assert report.page.locator("script, iframe, img, object, embed, form, base").count() == 0
    assert report.page.locator("[onload], [onerror], [onclick], [style]").count() == 0
    assert [link for link in report.page.evaluate("[...document.links].map(a => a.protocol)") if link != "file:"] == []
    assert report.asked == [(tmp_path / "report.html").as_uri()]
    assert report.complaints == []
    text = report.page.locator("body").inner_text()
    for words in (HOSTILE[0], HOSTILE[1], HOSTILE[3], HOSTILE[4], r"\x1b]0;owned\x07\x1b[2J\u202etxt.exe\x00\r\x9b5n"):
        assert words in text
    assert not set(text) & set("\x1b\x07\x00\x9b\u202e")


def test_the_logs_beside_it_are_linked(program: BrowserProgram, tmp_path: Path) -> None:
    page = opened(program, tmp_path).page
    links = page.locator("#task-fix-parser-0 a[href^='runs/']").evaluate_all("all => all.map(a => a.href)")
    assert len(links) == 4
    for link in links:
        assert Path(link.removeprefix("file://")).is_file()


def test_the_picture_of_the_readme_is_small() -> None:
    assert README_PICTURE.read_bytes().startswith(b"\x89PNG")
    assert README_PICTURE.stat().st_size <= MOST_BYTES
