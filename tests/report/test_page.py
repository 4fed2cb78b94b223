"""The page of a run: what it holds, how much of it, and that no text of an answer becomes markup."""

import html.parser
import json
import re

import pytest

from helpers.experiments import small
from helpers.report_runs import HOSTILE, held_out, make_run, write_lines
from nft_jax.report.against import compare_runs, tabulate_runs
from nft_jax.report.answers import read_held_out, read_rollouts, shorten
from nft_jax.report.page import PAGE_FILE, write_page

DRAWING = b"<svg></svg>"
MEANS = {"answers": 2, "problems": 9, "pass_at": {"1": 0.25, "2": 0.6}, "length": 3.0}
SCORE = MEANS | {"greedy": 0.5, "greedy_error": 0.02, "sampled": 0.4, "sampled_error": None, "truncated": 0.1}


class Scripts(html.parser.HTMLParser):
    """Collects the elements of a page, and the texts of its scripts."""

    def __init__(self):
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], False

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, text):
        if self.inside:
            self.scripts[-1] += text


def parse(path):
    scripts = Scripts()
    scripts.feed(path.read_text(encoding="utf-8"))
    return scripts


def test_page_has_scores_curves_answers_and_settings(tmp_path):
    run = make_run(tmp_path / "run")
    path = write_page(run, small(), {"test": {"base": SCORE, "final": SCORE}}, DRAWING)
    text = path.read_text(encoding="utf-8")
    assert path == run / PAGE_FILE
    assert "50.0% ± 2.0%" in text and "40.0%" in text and "answers_per_prompt" in text
    assert "data:image/svg+xml;base64," in text
    # The name of MathML is no address that is opened.
    assert not re.search("https?://(?!www.w3.org/1998/Math/MathML)", text)


def test_page_of_a_run_that_is_not_finished(tmp_path):
    make_run(tmp_path)
    assert "not finished" in write_page(tmp_path, small(), None, DRAWING).read_text(encoding="utf-8")


def test_hostile_answers_stay_data(tmp_path):
    page = parse(write_page(make_run(tmp_path / "run"), small(), {"test": {"final": SCORE}}, DRAWING))
    assert len(page.scripts) == 2
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert [attributes["src"][:5] for tag, attributes in page.tags if tag == "img"] == ["data:"]
    # No text of the data can end the script's element, or begin a comment in it.
    assert "<" not in page.scripts[0]
    data = json.loads(page.scripts[0])
    assert data["rollouts"][0]["groups"][0]["answers"][0] == HOSTILE


def test_rollouts_beyond_the_limit_keep_those_with_tokens_and_say_so(tmp_path):
    run = make_run(tmp_path, rollouts=3)
    rollouts, note = read_rollouts(run)
    assert [len(rollout["groups"]) for rollout in rollouts] == [2, 2, 2] and note.startswith("all 6 saved")
    rollouts, note = read_rollouts(run, most_bytes=3 * 800)
    assert [len(rollout["groups"]) for rollout in rollouts] == [1, 1, 1]
    assert all("tokens" in rollout["groups"][0] for rollout in rollouts)
    assert note.startswith("3 of 6 saved prompts")


def test_rollouts_skip_a_line_that_is_half_written(tmp_path):
    run = make_run(tmp_path, rollouts=1)
    with open(run / "rollouts" / "step_000001.jsonl", "a") as out:
        out.write('{"prompt": "Q')
    (rollout,) = read_rollouts(run)[0]
    assert [group["place"] for group in rollout["groups"]] == [0, 1]


def test_held_out_answers_are_by_stage(tmp_path):
    rows = read_held_out(make_run(tmp_path))["test"]
    assert list(rows[0]) == ["prompt", "reference", "base", "step000010", "final"]
    assert [row["final"][0]["correct"] for row in rows] == [True, False, True]
    assert len(read_held_out(tmp_path, most=2)["test"]) == 2


def test_shorten_leaves_out_whole_lines_alone():
    prompts = [f"Be brief.\nProblem: What is {n}1?\nAnswer:" for n in (2, 3)]
    assert shorten(prompts * 2) == {
        prompt: f"Problem: What is {n}1?" for prompt, n in zip(prompts, (2, 3), strict=True)
    }
    assert shorten(prompts[:1]) == {prompts[0]: prompts[0]}


def test_comparison_counts_what_is_fixed_and_broken(tmp_path):
    one = make_run(tmp_path / "one", final=(True, False, True))
    other = make_run(tmp_path / "other", final=(False, False, True))
    found = compare_runs(one, other, 2)
    # In common, fixed, broken, both correct, both incorrect.
    assert [row[:6] for row in found["table"]] == [
        ("test", "3", "1", "0", "1", "1"),
        ("test, even", "2", "1", "0", "1", "0"),
        ("test, odd", "1", "0", "0", "0", "1"),
    ]
    assert found["table"][0][6].startswith("+33.3% [") and found["table"][0][7] == "+0.0% [+0.0%, +0.0%]"
    assert found["problems"] == 3 and [row["outcome"] for row in found["answers"]] == ["fixed", "both incorrect"]
    assert found["answers"][0]["here"]["text"] == HOSTILE
    reverse = compare_runs(other, one, 9)
    assert reverse["table"][0][:6] == ("test", "3", "0", "1", "1", "1")
    assert str(other) in tabulate_runs(found) and "both incorrect" in tabulate_runs(found)
    page = parse(write_page(one, small(), None, DRAWING, [found]))
    assert json.loads(page.scripts[0])["against"][0]["answers"] == found["answers"]
    assert ("div", {"id": "against-0"}) in page.tags


def test_comparison_without_a_common_problem_is_refused(tmp_path):
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other")
    write_lines(other / "held_out" / "test_final.jsonl", [held_out("9 + 9", True)])
    with pytest.raises(ValueError, match="no problem in common"):
        compare_runs(one, other, 9)
    (other / "held_out" / "test_final.jsonl").unlink()
    with pytest.raises(ValueError, match="is missing: a run writes it when it is finished and has test problems"):
        compare_runs(one, other, 9)
