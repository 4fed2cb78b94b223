"""A headless Chromium for the tests of the page of a run."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

QUIET = ("no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update", "disable-sync")


def find_browser() -> str | None:
    """The program; None where there is none."""
    return shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """Playwright's browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=find_browser(), args=[f"--{flag}" for flag in QUIET])
        yield opened
        opened.close()
