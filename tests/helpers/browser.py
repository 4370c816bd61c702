"""A real browser without a screen: Debian's Chromium, driven by Playwright."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, DESK = {"width": 390, "height": 800}, {"width": 1200, "height": 850}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: package chromium)")


@contextlib.contextmanager
def chromium(*arguments: str) -> Iterator:
    """Start Chromium; as root it runs without its sandbox, and opens only pages of ours."""
    from playwright.sync_api import sync_playwright

    unprotected = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*unprotected, *arguments])
        try:
            yield browser
        finally:
            browser.close()


def strangers(page, *home: str) -> list[str]:
    """A list that fills with every address beyond `home` that a page asks for."""
    found: list[str] = []
    page.on("request", lambda request: request.url.startswith(("data:", "blob:", *home)) or found.append(request.url))
    return found


def complaints(page, *home: str) -> list[str]:
    """The same, and whatever else the browser complains of."""
    found = strangers(page, *home)
    page.on("console", lambda message: message.type in ("error", "warning") and found.append(message.text))
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: found.append(f"failed: {request.url[:120]}"))
    return found


def sideways(page) -> int:
    """How far a page can be scrolled to the side [px]."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
