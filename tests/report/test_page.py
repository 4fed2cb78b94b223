"""The page of a run: what it holds, how much of it, and that no text of an answer becomes markup."""

import html.parser
import json

import pytest

from helpers.experiments import small
from helpers.report_runs import HOSTILE, held_out, make_run, write_lines
from nft_jax.report.page import PAGE_FILE, read_held_out, read_rollouts, write_page

SCORE = {"greedy": 0.5, "greedy_error": 0.02, "sampled": 0.4, "sampled_error": None, "truncated": 0.1}


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
    path = write_page(run, small(), {"test": {"base": SCORE, "final": SCORE}})
    text = path.read_text(encoding="utf-8")
    assert path == run / PAGE_FILE
    assert "50.0% ± 2.0%" in text and "40.0%" in text and "answers_per_prompt" in text
    assert "data:image/svg+xml;base64," in text
    assert "http://" not in text and "https://" not in text


def test_page_of_a_run_that_is_not_finished(tmp_path):
    make_run(tmp_path)
    assert "not finished" in write_page(tmp_path, small(), None).read_text(encoding="utf-8")


def test_hostile_answers_stay_data(tmp_path):
    page = parse(write_page(make_run(tmp_path / "run"), small(), {"test": {"final": SCORE}}))
    assert len(page.scripts) == 3
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert [attributes["src"][:5] for tag, attributes in page.tags if tag == "img"] == ["data:"]
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


def test_held_out_answers_are_by_stage_and_without_the_template(tmp_path):
    rows = read_held_out(make_run(tmp_path))["test"]
    assert [row["problem"] for row in rows] == ["0", "1", "2"]
    assert list(rows[0]) == ["problem", "reference", "base", "final"]
    assert [row["final"][0]["correct"] for row in rows] == [True, False, True]


def test_comparison_counts_what_is_fixed_and_broken(tmp_path):
    one = make_run(tmp_path / "one", final=(True, False, True))
    other = make_run(tmp_path / "other", final=(False, False, True))
    text = write_page(one, small(), None, [other]).read_text(encoding="utf-8")
    row = text[text.index(f"<td>{other}</td>") :].split("</tr>")[0]
    numbers = [cell.split("</td>")[0] for cell in row.split('<td class="number">')[1:]]
    assert numbers[:5] == ["3", "1", "0", "1", "1"] and numbers[5].startswith("+33.3% ±")


def test_comparison_without_a_common_problem_is_refused(tmp_path):
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other")
    write_lines(other / "held_out" / "test_final.jsonl", [held_out("other", True)])
    with pytest.raises(ValueError, match="no test problem in common"):
        write_page(one, small(), None, [other])
    (other / "held_out" / "test_final.jsonl").unlink()
    with pytest.raises(ValueError, match="is missing"):
        write_page(one, small(), None, [other])
