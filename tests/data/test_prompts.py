"""Prompt and example tables: exact texts, padding on the right, dropped rows."""

import re

import numpy as np
import pytest

from nft_jax.data.control_tokens import outside
from nft_jax.data.files import Problem
from nft_jax.data.prompts import (
    TEMPLATES,
    build_examples,
    build_prompts,
    missing_marks,
    render,
    template_notes,
    unwrap,
)
from nft_jax.data.tokenizer import Tokenizer


class Letters(Tokenizer):
    """A tokenizer whose tokens are the code points of characters; 1 ends an answer."""

    vocab_size = 1 << 17
    eos_ids = (1, 2)

    def encode_batch(self, texts):
        return [[ord(letter) for letter in text] for text in texts]

    def apply_chat_templates(self, chats):
        assert all([*message] == ["role", "content"] for messages in chats for message in messages)
        return ["".join(f"[{m['role']}]{m['content']}" for m in messages) + "[assistant]" for messages in chats]

    def save(self, folder):
        raise NotImplementedError

    def _decode(self, ids):
        return ["".join(map(chr, row)) for row in ids]


PROBLEMS = [Problem("1+1=", "2"), Problem("12+1=", "13"), Problem("1=", "1"), Problem("100+100=", "200")]


def test_build_prompts_pads_right_and_drops_long_prompts():
    table = build_prompts(PROBLEMS, Letters(), template="plain", max_prompt_tokens=5)
    np.testing.assert_array_equal(
        table.token_QP, [[49, 43, 49, 61, 0], [49, 50, 43, 49, 61], [49, 61, 0, 0, 0]], strict=False
    )
    assert table.token_QP.dtype == table.length_Q.dtype == np.int32
    assert table.length_Q.tolist() == [4, 5, 2]
    assert table.answers == ["2", "13", "1"]
    assert table.prompts == ["1+1=", "12+1=", "1="]
    assert table.problems == PROBLEMS[:3]
    assert table.dropped == 1


def test_build_prompts_stays_aligned_after_a_dropped_prompt():
    table = build_prompts(PROBLEMS[::-1], Letters(), template="plain", max_prompt_tokens=4)
    assert (table.answers, table.prompts, table.dropped) == (["1", "2"], ["1=", "1+1="], 2)
    for row, length, prompt in zip(table.token_QP, table.length_Q, table.prompts, strict=True):
        assert Letters().decode(row[:length]) == prompt
        assert not row[length:].any()


def test_build_prompts_refuses_long_prompts():
    problems = [Problem("1=", "1", id="short"), *(Problem("9" * n, "0", id=f"long-{n}") for n in (7, 12, 9))]
    form = {"template": "plain", "long_prompts": "refuse", "source": "some/train.jsonl"}
    with pytest.raises(ValueError) as caught:
        build_prompts(problems, Letters(), max_prompt_tokens=6, **form)
    assert str(caught.value) == (
        "some/train.jsonl: 3 of 4 prompts have more than config.data.max_prompt_tokens=6 tokens, the first 'long-7' "
        "with 7, the longest 12; config.data.max_prompt_tokens=12 keeps them all, config.data.long_prompts=drop leaves "
        "them out"
    )
    with pytest.raises(ValueError, match="1 of 4 prompts .* the first 'long-12' with 12, the longest 12"):
        build_prompts(problems, Letters(), max_prompt_tokens=11, **form)
    with pytest.raises(ValueError, match="3 of 3 prompts"):
        build_prompts(problems[1:], Letters(), max_prompt_tokens=2, **form)
    kept = build_prompts(problems, Letters(), max_prompt_tokens=12, **form)
    assert (kept.dropped, len(kept.problems)) == (0, 4)


def test_build_prompts_keeps_prompts_at_the_limit():
    assert build_prompts(PROBLEMS, Letters(), template="plain", max_prompt_tokens=8).dropped == 0


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "What is {x} of {problem}?"),
        (
            "plain_boxed",
            "What is {x} of {problem}?\nPlease reason step by step, and put your final answer within \\boxed{}.\n",
        ),
        (
            "qwen_math",
            "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
            "<|im_start|>user\nWhat is {x} of {problem}?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "dapo",
            "Solve the following math problem step by step. The last line of your response should be of the form "
            "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\nWhat is {x} of {problem}?"
            '\n\nRemember to put your answer on its own line after "Answer:".',
        ),
        ("chat", "[user]What is {x} of {problem}?[assistant]"),
    ],
)
def test_render_is_exact_and_keeps_braces(template, text):
    problem = Problem("What is {x} of {problem}?", "0")
    assert render(problem.problem, Letters(), template=template) == text
    table = build_prompts([problem], Letters(), template=template, max_prompt_tokens=300)
    assert table.prompts == [text]
    assert Letters().decode(table.token_QP[0, : table.length_Q[0]]) == text


def test_templates_are_all_tested_and_have_one_slot():
    assert set(TEMPLATES) == {"plain", "plain_boxed", "qwen_math", "dapo", "chat"}
    assert all(form is None or form.count("{problem}") == 1 for form in TEMPLATES.values())


@pytest.mark.parametrize("template", sorted(set(TEMPLATES) - {"chat"}))
def test_unwrap_removes_a_template_and_nothing_else(template):
    prompt = render(" 1+1?\n", Letters(), template=template)
    assert unwrap(prompt, template) == " 1+1?\n"
    before, after = TEMPLATES[template].split("{problem}")
    for text in ("1+1?", before + "1+1?", "1+1?" + after, before[:-1] + "1+1?" + after, (before + after)[1:], ""):
        if not (text.startswith(before) and text.endswith(after)):
            assert unwrap(text, template) == text


def test_unwrap_keeps_a_text_whose_two_sides_overlap():
    before, after = TEMPLATES["dapo"].split("{problem}")
    meeting = before + after.removeprefix("\n\n")
    assert meeting.startswith(before)
    assert meeting.endswith(after)
    assert unwrap(meeting, "dapo") == meeting


def test_build_prompts_errors():
    with pytest.raises(
        ValueError, match="'qwen_maths': .* chat, dapo, plain, plain_boxed, qwen_math; did you mean 'qwen_math'"
    ):
        build_prompts(PROBLEMS, Letters(), template="qwen_maths", max_prompt_tokens=8)
    with pytest.raises(ValueError, match="unknown prompt template 'zzz'") as caught:
        build_prompts(PROBLEMS, Letters(), template="zzz", max_prompt_tokens=8)
    assert "did you mean" not in str(caught.value)
    lengths = [Problem("x" * n, "0") for n in range(11, 31)]  # 11…30: 90 % of 20 prompts are those up to 28 or 29
    with pytest.raises(ValueError, match="11 to 30 tokens and max_prompt_tokens is 10") as caught:
        build_prompts(lengths, Letters(), template="plain", max_prompt_tokens=10)
    enough = int(re.search(r"max_prompt_tokens=(\d+) would keep 90 %", str(caught.value)).group(1))
    assert 0.9 <= build_prompts(lengths, Letters(), template="plain", max_prompt_tokens=enough).length_Q.size / 20 < 1
    with pytest.raises(ValueError, match="no prompt fits: there are none"):
        build_prompts([], Letters(), template="plain", max_prompt_tokens=10)
    with pytest.raises(ValueError, match=r"prompt 1 \(''\) has no tokens"):
        build_prompts([PROBLEMS[0], Problem("", "0")], Letters(), template="plain", max_prompt_tokens=10)


def test_build_examples_ends_in_eos_and_drops_whole_pairs():
    pairs = [("1+1=", "2"), ("12345=", "1"), ("1=", "1234"), ("1=", "123"), ("2=", "")]
    pairs = [(outside(prompt), response) for prompt, response in pairs]
    table = build_examples(pairs, Letters(), max_prompt_tokens=5, max_answer_tokens=4)
    assert table.dropped == 2  # a prompt of 6 tokens; a response of 4 tokens and its EOS
    np.testing.assert_array_equal(table.token_QP, [[49, 43, 49, 61, 0], [49, 61, 0, 0, 0], [50, 61, 0, 0, 0]])
    np.testing.assert_array_equal(table.response_QT, [[50, 1, 0, 0], [49, 50, 51, 1], [1, 0, 0, 0]])
    assert table.prompt_length_Q.tolist() == [4, 2, 2]
    assert table.response_length_Q.tolist() == [2, 4, 1]
    assert {array.dtype for array in table[:4]} == {np.dtype(np.int32)}


def test_build_examples_errors():
    with pytest.raises(
        ValueError,
        match="2 to 2 tokens and config.data.max_prompt_tokens is 4 .*; .* 3 to 3 tokens and .*max_answer_tokens is 2",
    ):
        build_examples([(outside("1="), "12")], Letters(), max_prompt_tokens=4, max_answer_tokens=2)
    with pytest.raises(ValueError, match="has no tokens"):
        build_examples([(outside(""), "12")], Letters(), max_prompt_tokens=4, max_answer_tokens=8)


class Marked(Letters):
    """A tokenizer with some marks, each of which is one token, and their chat template."""

    def __init__(self, *marks):
        self.marks = marks

    def encode_batch(self, texts):
        parts = [re.split("|".join(map(re.escape, self.marks)) if self.marks else "(?!)", text) for text in texts]
        return [[ord(letter) for letter in "0".join(each)] for each in parts]

    def apply_chat_templates(self, chats):
        if not self.marks:
            raise ValueError("no chat template")
        return ["".join(self.marks) + messages[0]["content"] for messages in chats]


@pytest.mark.parametrize(
    "text, marks",
    [
        ("<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>", ["<|im_start|>", "<|im_end|>"]),
        ("<｜User｜>{problem}<｜Assistant｜><think>\n", ["<｜User｜>", "<｜Assistant｜>"]),
        ("<start_of_turn>user\n{problem}<end_of_turn>", ["<start_of_turn>", "<end_of_turn>"]),
        ("<s>[INST] {problem} [/INST]", ["<s>", "[INST]", "[/INST]"]),
        ("Is a < b | c > d? <answer> {problem} [1] \\boxed{}.", []),
    ],
)
def test_missing_marks_finds_the_marks_of_a_template_that_are_no_tokens(monkeypatch, text, marks):
    monkeypatch.setitem(TEMPLATES, "own", text)
    assert missing_marks("own", Letters()) == marks
    assert missing_marks("own", Marked(*marks)) == []
    assert missing_marks("own", Marked(*marks[1:])) == marks[:1]


def test_template_notes_names_the_marks_and_the_templates_that_fit():
    """R1-Distill's tokenizer under qwen_math, which Qwen2's has the marks of."""
    note, *others = template_notes("qwen_math", Marked("<｜User｜>", "<｜Assistant｜>"))
    assert not others
    assert "qwen_math: this tokenizer cuts <|im_start|>, <|im_end|> into pieces" in note
    assert note.endswith("fit: plain, plain_boxed, dapo, chat")
    assert template_notes("qwen_math", Marked())[0].endswith("fit: plain, plain_boxed, dapo")
    assert template_notes("qwen_math", Marked("<|im_start|>", "<|im_end|>")) == []
    assert template_notes("chat", Marked("<｜User｜>", "<｜Assistant｜>")) == []


# Messages before the problem.

BEFORE = [("system", "Be brief."), ("user", "1?"), ("assistant", "2")]


def test_render_puts_messages_before_the_problem(tmp_path):
    chat = "[system]Be brief.[user]1?[assistant]2[user]3?[assistant]"
    assert render("3?", Letters(), template="chat", messages=BEFORE) == chat
    (tmp_path / "own.jinja").write_text("{{ system }} {{ shots[0].response }} {{ problem }}")
    own = str(tmp_path / "own.jinja")
    assert render("3?", Letters(), template=own, messages=BEFORE) == "Be brief. 2 3?"
    for template, text in (("chat", chat), (own, "Be brief. 2 3?")):
        table = build_prompts([Problem("3?", "4")], Letters(), template=template, messages=BEFORE, max_prompt_tokens=99)
        assert table.prompts == [text]


@pytest.mark.parametrize("template", sorted(set(TEMPLATES) - {"chat"}))
def test_render_refuses_messages_that_a_template_has_no_place_for(template):
    with pytest.raises(ValueError, match=rf"config.data.template={template} .*template=chat, or a FILE.jinja"):
        render("3?", Letters(), template=template, messages=BEFORE[:1])


@pytest.mark.parametrize("template", sorted(set(TEMPLATES) - {"chat"}))
def test_build_prompts_never_drops_the_messages_of_a_problem(template):
    problem = Problem("3?", "4", messages=tuple(BEFORE))
    words = rf"template={template} has no place for the 3 messages before the problem '3\?' .*'system': 'Be brief.'"
    with pytest.raises(ValueError, match=words):
        build_prompts([problem], Letters(), template=template, max_prompt_tokens=9)
    shots = [("user", "5?"), ("assistant", "6")]
    table = build_prompts([problem], Letters(), template="chat", messages=shots, max_prompt_tokens=99)
    assert table.prompts == ["[user]5?[assistant]6[system]Be brief.[user]1?[assistant]2[user]3?[assistant]"]


@pytest.mark.parametrize("text", ["[]", "", "{{ messages[0]['role'] }}:"])
def test_render_refuses_a_template_that_leaves_out_the_problem(tmp_path, text):
    class Fixed:
        place = "FOLDER"

        def apply_chat_templates(self, chats):
            return [text.replace("{{ messages[0]['role'] }}", chat[0]["role"]) for chat in chats]

    with pytest.raises(ValueError, match=r"template=chat \(FOLDER\) leaves out the problem '1 \+ 1 = '"):
        render("1 + 1 = ", Fixed(), template="chat")
