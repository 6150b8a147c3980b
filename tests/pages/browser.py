"""Prefect's pages as a person uses them: what is clicked is found by the words that stand there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser as BrowserProgram
from playwright.sync_api import Locator, Page, expect, sync_playwright

PICTURES = Path(__file__).resolve().parents[2] / ".overnight" / "pages"
WAIT_MS = 90_000
BUSY = 503
# as root Chromium wants no sandbox; the rest keeps it from looking for the internet
_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


class Browser:
    """A window that is logged in; `shot` keeps what it shows in `.overnight/pages`."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def open(self, path: str) -> None:
        self.page.goto(f"{self.url}/v2/{path}")

    def shot(self, name: str, *, whole: bool = False) -> Path:
        """Take a picture once the page has come to rest; `whole` includes what must be scrolled to."""
        self.page.wait_for_load_state("networkidle")
        expect(self.page.locator("[data-slot=skeleton], .animate-pulse")).to_have_count(
            0
        )  # stands for what still loads
        return self.snap(name, whole=whole)

    def snap(self, name: str, *, whole: bool = False) -> Path:
        """Take a picture of whatever is there."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{name}.png"
        self.page.screenshot(path=path, full_page=whole, animations="disabled")
        return path

    def sees(self, words: str | re.Pattern[str]) -> None:
        """Wait until the words stand on the page."""
        expect(self.page.get_by_text(words).first).to_be_visible()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def menu(self, item: str) -> None:
        """Choose from the menu behind the three dots of a flow run's page."""
        self.page.locator("button[aria-haspopup=menu]").first.click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()

    def fill(self, fields: Mapping[str, str]) -> None:
        """Type into the fields of a form, each found by its label."""
        for label, text in fields.items():
            self._control(label).fill(text)

    def choose(self, label: str, option: str) -> None:
        """Pick one of a field's choices, or one of the saved blocks. A list that closed as the form came to rest is
        opened again.
        """
        control, wanted = self._control(label), self.page.get_by_role("option", name=option, exact=True)
        for _ in range(5):
            control.or_(control.get_by_role("button")).filter(has_text="Select").last.click()
            with suppress(AssertionError):
                expect(wanted).to_be_visible(timeout=WAIT_MS / 6)
                break
            self.page.keyboard.press("Escape")
        wanted.click()

    def add_item(self, label: str) -> None:
        """Add an entry to a field that is a list."""
        self._label(label).locator("xpath=following::button[normalize-space()='Add item'][1]").click()

    def to_the_top(self) -> None:
        self.page.evaluate("window.scrollTo(0, 0)")

    def switch(self, label: str) -> None:
        self._control(label).click()

    def new_block(self, slug: str, name: str, fields: Mapping[str, str]) -> None:
        """Fill the form of a block type, up to its Save button."""
        self.open("blocks/catalog")  # the page of blocks has a search of its own, which takes one back to it
        # it searches names, whatever their case; what the slug finds is nothing, once the search has begun
        self.page.get_by_placeholder("Search").fill(slug.replace("-", " "))
        # a moment after the last letter it goes to an address of its own, from wherever one is by then
        self.page.wait_for_url(re.compile(re.escape(f"blockName={slug.replace('-', '+')}")))
        self._follow(self.page.locator(f'a[href*="/blocks/catalog/{slug}/create"]'), "/create")
        self.page.get_by_label("Name", exact=True).fill(name)
        self.fill(fields)

    def new_run(self, deployment: str) -> None:
        """Walk to the run form of a deployment."""
        self.open("deployments")
        link = self.page.locator('a[href*="/deployments/deployment/"]')
        self._follow(link.filter(has_text=re.compile(f"^{re.escape(deployment)}$")), "/deployments/deployment/")
        self.press("Run")
        self.page.get_by_role("menuitem", name="Custom run").click()
        self.sees("Enforce Parameter Schema")

    def ask(self, button: str, path: str) -> Any:
        """Press a button that writes to this path; what the server answers.

        Presses again, as a person does, when SQLite was locked: of writes that are not repeated 8 to 10 in 100 are
        refused with 503 while flow runs go on (prefect 3.8.8, 2026-11-22). Prefect's Python client repeats them.
        """
        for _ in range(10):
            with self.page.expect_response(re.compile(f"{path}$")) as answer:
                self.press(button)
            if answer.value.status != BUSY:
                break
        assert answer.value.ok, f"{answer.value.status} {answer.value.text()}"
        return answer.value.json()

    def submit(self) -> str:
        """Start the run that was filled in; its id. The notice that links to it is gone after 4 s."""
        run_id: str = self.ask("Submit", "/create_flow_run")["id"]
        return run_id

    def flow_run(self, run_id: str, tab: str) -> None:
        """A flow run's page, afresh: what a page shows of states is up to 30 s old."""
        self.open(f"runs/flow-run/{run_id}?tab={tab.replace(' ', '')}")
        expect(self.page.get_by_role("tab", name=tab, exact=True)).to_have_attribute("data-state", "active")

    def task_run(self, run_id: str, ending: str) -> None:
        """The page of the task run of this flow run whose name ends so."""
        self.flow_run(run_id, "Task Runs")
        self._follow(self.page.get_by_role("link", name=re.compile(f"{re.escape(ending)}$")), "/runs/task-run/")

    def artifact(self, run_id: str, ending: str) -> None:
        """The newest page of the artifact of this flow run whose key ends so."""
        self.flow_run(run_id, "Artifacts")
        self._follow(self.page.locator(f'a[href$="{ending}"]').first, "/artifacts/key/")
        self._follow(self.page.locator('a[href*="/artifacts/artifact/"]').first, "/artifacts/artifact/")

    def _follow(self, link: Locator, to: str) -> None:
        """Click, and wait until the page that follows has taken over: both may have a tab of the same name."""
        link.click()
        self.page.wait_for_url(re.compile(re.escape(to)))
        self.page.wait_for_load_state("networkidle")

    def _label(self, words: str) -> Locator:
        fitting = re.compile(f"^{re.escape(words)}( \\(Optional\\))?$")
        return self.page.locator("label").filter(has_text=fitting).first

    def _control(self, label: str) -> Locator:
        return self.page.locator(f'[id="{self._label(label).get_attribute("for")}"]')


def chromium() -> str:
    """The browser's program. Skips, by name, where there is none; CI must have it."""
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have chromium")
        pytest.skip("no chromium on this machine")
    return found


@contextmanager
def windows() -> Iterator[BrowserProgram]:
    """Chromium itself, for pages that need no server and no login."""
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=chromium(), args=_OPTIONS)
        yield program
        program.close()


@contextmanager
def browsing(url: str, login: str) -> Iterator[Browser]:
    """A window on a server, past its login page."""
    with windows() as program:
        page = program.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(WAIT_MS)
        page.set_default_navigation_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        page.goto(url)
        page.locator("input").fill(login)
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Logout")).to_be_visible()
        yield Browser(page, url)
