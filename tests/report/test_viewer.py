"""The page in a browser: what it shows, its colors against the losses, its keys, and hostile answers as text."""

import re

import numpy as np
import pytest

from helpers.browser import find_browser, open_browser
from helpers.experiments import small
from helpers.report_runs import make_run
from nft_jax.report.against import compare_runs
from nft_jax.report.page import write_page

# The colors of the picture of the slots.
COLORS = """(() => {
  const canvas = document.getElementById("slots"), found = new Set();
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let i = 0; i < pixels.length; i += 4) found.add(pixels.slice(i, i + 3).join());
  return [...found];
})()"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not find_browser(), reason="no Chromium to open the page in")]


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright", reason="no Playwright to drive Chromium: pip install -e .[browser]")
    with open_browser() as opened:
        yield opened


@pytest.fixture
def page(browser, tmp_path):
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other", final=(False, True, True))
    path = write_page(run, small(updates_per_step=2), None, b"<svg></svg>", [compare_runs(run, other, 9)])
    opened, errors = browser.new_page(), []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    opened.on("dialog", lambda dialog: errors.append(dialog.message))
    opened.goto(path.as_uri())
    yield opened
    assert errors == []
    opened.close()


def test_page_opens_at_its_beginning_and_keys_do_not_move_it(page):
    page.set_viewport_size({"width": 800, "height": 300})
    page.reload()
    assert page.evaluate("scrollY") == 0
    page.keyboard.press("j")
    assert page.evaluate("scrollY") == 0


def weights(page):
    return [float(token.get_attribute("data-multiplier")) for token in page.query_selector_all(".token")]


def opacities(page):
    """How strong the color of each token is, from −0.75 (orange) to 0.75 (blue, violet)."""
    styles = [token.get_attribute("style") for token in page.query_selector_all(".token")]
    parts = [re.search(r"--(\w+)\), ([\d.]+)", style) for style in styles]
    return [float(part[2]) * (-1 if part[1] == "bad" else 1) for part in parts]


def test_weights_of_tokens_follow_the_loss_and_its_sliders(page):
    # After the step log R is 0.25 and −1 in both answers; the first is correct, the second is not; r̂ is one half.
    page.select_option("#at", "end")
    ratio = np.exp([0.25, -1.0])
    negative = -ratio / np.maximum((1 - 0.5 * ratio) / 0.5, 1.0)
    np.testing.assert_allclose(weights(page), [0.5, 0.5, *(0.5 * negative)], rtol=1e-5)
    page.evaluate("set => { const e = document.getElementById('epsilon'); e.value = set; e.oninput(); }", "0.01")
    np.testing.assert_allclose(weights(page)[2:], 0.5 * -ratio / ((1 - 0.5 * ratio) / 0.5), rtol=1e-5)
    page.keyboard.press("g")
    # The clip acts above 1.2 on the correct answer, below 0.8 on the incorrect one.
    np.testing.assert_allclose(weights(page), [0, ratio[1], -ratio[0], 0], rtol=1e-5)
    assert "GRPO 50.0 %" in page.inner_text("#silent")
    assert "inside each update of the step: 1.00, 1.25." in page.inner_text("#silent")


def test_hostile_answers_are_text(page):
    shown = page.inner_text("#answers")
    assert "</script><script>alert(1)</script>" in shown and "\\u202e" in shown and "\u202e" not in shown
    assert len(page.query_selector_all("script")) == 2
    page.click("#held summary")
    for part in ("#held", "#against-0"):
        shown = page.inner_text(part)
        assert "</script><script>alert(1)</script>" in shown and "\\u202e" in shown and "\u202e" not in shown


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
    shown = page.inner_text("#numbers")
    assert "log-prob when sampled -0.5 · in the update -0.375 · after the step -0.25" in shown
    assert "weight in the update 0.75 · R in the update 1.133 · R after the step 1.284" in shown
    assert "Δ sampler − trainer 2.0e-7 · entropy in nats 0.5" in shown
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_weights_are_taken_at_the_ratio_inside_the_update(page):
    ratio = np.exp([0.125, -0.5])
    negative = -ratio / np.maximum((1 - 0.5 * ratio) / 0.5, 1.0)
    np.testing.assert_allclose(weights(page), [0.5, 0.5, *(0.5 * negative)], rtol=1e-5)
    assert "trained by update 2 of the step" in page.inner_text("#group")
    # Half of the stored weights are 0.
    assert "in the update itself 50.0 % (of 4 recorded tokens that trained)" in page.inner_text("#silent")


@pytest.mark.parametrize(
    ("color", "values", "full"),
    [
        ("multiplier", [0.5, 0.5, -0.5 * np.exp(0.125), -0.5 / (2 * np.exp(0.5) - 1)], 1),
        ("stored", [0.75, 0, 0.75, 0], 1),
        ("logRatio", [0.125, -0.5] * 2, 0.5),
        ("change", [0.25, -1] * 2, 0.5),
        ("gap", [2e-7, -4e-7] * 2, 4e-7),
        ("surprise", [0.5, 1] * 2, 4),
        ("entropy", [0.5, 0.1] * 2, 2),
    ],
)
def test_colors_are_as_strong_as_the_numbers(page, color, values, full):
    page.select_option("#color", color)
    np.testing.assert_allclose(opacities(page), 0.75 * np.clip(np.array(values) / full, -1, 1), atol=6e-4)


def test_extracted_answers_and_reasons_are_beside_the_answers_and_are_searched(page):
    page.keyboard.press("j")
    assert [found.inner_text() for found in page.query_selector_all(".found")] == [
        "read as “5”",
        "read as “4”; not the reference",
    ]
    page.fill("#search", "</script>")
    shown = page.inner_text(".found")
    assert "</script><script>alert(1)</script>" in shown and "\\u202e" in shown and "\u202e" not in shown


def test_answers_of_a_group_are_sorted(page):
    page.keyboard.press("j")

    def order():
        return [card.inner_text()[0] for card in page.query_selector_all(".card")]

    assert order() == ["✓", "✗"]
    page.evaluate("shown[selected].lengths[1] = 9")
    page.select_option("#sort-answers", "length")
    assert order() == ["✗", "✓"]
    page.select_option("#sort-answers", "verdict")
    assert order() == ["✓", "✗"]


def test_weights_are_shown_at_the_ratio_that_is_chosen(page):
    page.select_option("#at", "start")
    # At R = 1: ω r for a correct answer, −ω λ r̂ / (1 − r̂) for an incorrect one.
    np.testing.assert_allclose(weights(page), [0.5, 0.5, -0.5, -0.5], rtol=1e-5)
    assert "at R = 1" in page.inner_text("#silent") and "GRPO 0.0 %" in page.inner_text("#silent")


def test_scale_of_colors_has_two_hues_for_signed_values_and_one_for_others(page):
    samples = page.query_selector_all("#legend .sample")
    assert [sample.inner_text() for sample in samples] == ["≤\u202f-1", "-0.5", "0", "0.5", "≥\u202f1"]
    page.select_option("#color", "entropy")
    assert len(page.query_selector_all("#legend .sample")) == 3
    assert "--neutral" in page.query_selector(".token").get_attribute("style")


def test_same_prompt_at_another_step_is_a_click_away(page):
    assert page.input_value("#step") == "2"
    page.keyboard.press("j")
    assert "✓ 5 ×1 · ✗ 4 ×1" in page.inner_text("#elsewhere")
    page.click("#elsewhere button:not([disabled])")
    assert page.input_value("#step") == "1"
    assert "2 + 3" in page.inner_text("#prompt")


def test_held_out_answers_are_side_by_side(page):
    page.click("#held summary")
    rows = page.query_selector_all("#held tr")
    assert rows[0].inner_text().split("\t") == ["problem", "base", "step 10", "final", "reference"]
    assert rows[1].inner_text().split("\t")[1].strip().startswith("✗")
    page.select_option("#held select", "learned")
    (row,) = page.query_selector_all("#held tr")[1:]
    assert "0 + 1" in row.inner_text()


def test_answers_of_two_runs_are_chosen_by_outcome_and_kind(page):
    def outcomes():
        return [row.inner_text().split("\t")[0] for row in page.query_selector_all("#against-0 tr")[1:]]

    assert outcomes() == ["fixed", "broken"]
    page.select_option("#against-0 label:nth-child(2) select", "odd")
    assert outcomes() == ["broken"]
    page.select_option("#against-0 label:nth-child(1) select", "both correct")
    page.select_option("#against-0 label:nth-child(2) select", "all kinds")
    assert outcomes() == ["both correct"]


def test_slots_of_a_step_are_drawn_pointed_at_and_opened(page):
    assert "8 answers in 2 slots and 7 trips, 100.0 % of the places busy" in page.inner_text("#slots-summary")
    box = page.evaluate(
        "(() => { const b = document.getElementById('slots'); return [b.clientWidth, b.clientHeight]; })()"
    )
    first_of_round_2 = {"x": 34 + (box[0] - 40) * 3.5 / 7, "y": 10}
    page.hover("#slots", position=first_of_round_2)
    shown = page.inner_text("#slots-numbers")
    assert shown.startswith("slot 0, trips 3 to 4: 2 tokens, round 2, prompt 1, answer 1; ✓ correct")
    assert "</script>" in shown
    page.keyboard.press("j")
    page.click("#slots", position=first_of_round_2)
    assert page.query_selector("#prompts li").get_attribute("aria-selected") == "true"
    # Two colors at least, beside the ground's: correct and incorrect.
    colors = page.evaluate(COLORS)
    assert {"42,120,214", "235,104,52"} <= set(colors)


def test_page_fits_a_narrow_screen_and_paper(page):
    for width in (360, 800):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.emulate_media(media="print")
    assert not page.is_visible("#prompts") and page.is_visible("#answers")
