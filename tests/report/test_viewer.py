"""The page in a browser: what it shows, its colors against the losses, its keys, and hostile answers as text."""

import shutil

import numpy as np
import pytest

from helpers.experiments import small
from helpers.report_runs import make_run
from nft_jax.report.page import write_page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ("no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update", "disable-sync")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page in")]


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright to drive Chromium: pip install -e .[browser]"
    )
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=[f"--{flag}" for flag in QUIET])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, tmp_path):
    path = write_page(make_run(tmp_path / "run"), small(), None)
    opened, errors = browser.new_page(), []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    opened.on("dialog", lambda dialog: errors.append(dialog.message))
    opened.goto(path.as_uri())
    yield opened
    assert errors == []
    opened.close()


def weights(page):
    return [float(token.get_attribute("data-multiplier")) for token in page.query_selector_all(".token")]


def test_weights_of_tokens_follow_the_loss_and_its_sliders(page):
    # log R is 0.25 and −1 in both answers; the first is correct, the second is not; the rate is one half.
    ratio = np.exp([0.25, -1.0])
    negative = -ratio / np.maximum((1 - 0.5 * ratio) / 0.5, 1.0)
    np.testing.assert_allclose(weights(page), [0.5, 0.5, *(0.5 * negative)], rtol=1e-5)
    page.evaluate("set => { const e = document.getElementById('epsilon'); e.value = set; e.oninput(); }", "0.01")
    np.testing.assert_allclose(weights(page)[2:], 0.5 * -ratio / ((1 - 0.5 * ratio) / 0.5), rtol=1e-5)
    page.keyboard.press("g")
    # The clip acts above 1.2 on the correct answer, below 0.8 on the incorrect one.
    np.testing.assert_allclose(weights(page), [0, ratio[1], -ratio[0], 0], rtol=1e-5)
    assert "GRPO 50.0 %" in page.inner_text("#silent")


def test_hostile_answers_are_text(page):
    shown = page.inner_text("#answers")
    assert "</script><script>alert(1)</script>" in shown and "\\u202e" in shown and "\u202e" not in shown
    assert len(page.query_selector_all("script")) == 3


def test_list_is_searched_sorted_and_walked_by_keys(page):
    assert len(page.query_selector_all("#prompts li")) == 2
    page.keyboard.press("j")
    assert page.query_selector_all("#prompts li")[1].get_attribute("aria-selected") == "true"
    assert "2 + 3" in page.inner_text("#prompt")
    page.fill("#search", "2 + 3")
    assert len(page.query_selector_all("#prompts li")) == 1
    page.fill("#search", "")
    page.select_option("#show", "tokens")
    assert len(page.query_selector_all("#prompts li")) == 1
    page.select_option("#sort", "surprise")
    assert page.query_selector("#prompts li").get_attribute("aria-selected") == "true"


def test_numbers_of_a_token_are_shown_and_dark_mode_has_its_own_colors(page):
    page.hover(".token")
    assert "log-prob when sampled -0.500" in page.inner_text("#numbers")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_held_out_answers_are_side_by_side(page):
    page.click("summary")
    rows = page.query_selector_all(".held tr")
    assert rows[0].inner_text().split("\t") == ["problem", "base", "final", "reference"]
    assert rows[1].inner_text().split("\t")[1].startswith("✗")
