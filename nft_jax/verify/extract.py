"""The final answer in the text of a response."""

import re

from .prose import MATH, NUMBER, find_last_formula, is_denied

TAIL_CHARACTERS = 4096  # of the end of a response, searched for the answer

# What follows a mark of the end of a turn is another turn.
_END_MARK = re.compile(r"<\|[A-Za-z_]{2,30}\|>|</s>|<eos>|<(?:start|end)_of_turn>")
_BRACE, _PLAIN_BRACE = re.compile(r"[{}]"), re.compile(r"(?<!\\)[{}]")
_OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BOXES, _UNSPACED_BOXES = (r"\boxed", r"\fbox"), (r"\boxed{",)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*([-+]?\d+(?:[.,/]\d+)*|[A-Za-z](?![A-Za-z]))")
_DOUBT = re.compile(
    r"\b(?:impossible|doubt|deny|untrue|false|wrong|not (?:true|the case|possible|correct|certain))"
    r"(?: that| to (?:say|think)(?: that)?)?(?: (?:the|my|final|correct|right))*\s*$",
    re.I,
)
_TAG = re.compile(r"<answer>(?!.*<answer>)\s*(.*?)\s*</answer>", re.S | re.I)

_ADVERB = "(?:therefore|thus|hence|simply|just|indeed|then)"
_JOINT = rf"\s*(?:\*\*|\}})?\s*(?:is|(?:must|should) be|:|=)\s*(?:\*\*|\}})?\s*:?\s*(?:{_ADVERB},?\s+)?"
# Words that announce the answer; behind a box only "final answer" followed by a value does.
_ANNOUNCEMENT = re.compile(
    rf"(?i:\b(?:answer|ans|result|solution|option|choice)){_JOINT}"
    r"|(?i:\b(?:answers|results|solutions|roots|zeros)\s+are\s*:?\s*)"
    r"|(?i:\b(?:choose|pick|select)) (?=\(?[A-J]\)?\W*(?:$|\n))"
    r"|(?i:\b(?:option|choice|answer)) (?=\(?[A-J]\)? is (?:the )?(?:correct|right)\b)"
    r"|(?:答案|故|应)(?:是|为|选){1,2}[:：]?\s*"
    r"|(?i:\b(?:final\s+)?answer\b),?(?:\*\*)?[ \n]+(?:\*\*)?(?=[-+$\\\d(])"
    r"|^A\s*:\s*|####\s*(?=[-+$\\\d(.])",
    re.M,
)
_FINAL = re.compile(rf"(?i:\bfinal\s+answer){_JOINT}(?=[-+$\\\d(\[.]|[A-Z]\b)")
_LEAD = re.compile(
    r"(?i:(?:and|so|thus|hence|therefore|then|finally|(?:we|i)\s+(?:get|have|obtain|find)|(?:it|this|that)(?:\s+is|'s)|result|[a-z]\s+is)\b[\s,:]*)+"
)
# In the last sentence: "so there are 4 values of x with f(x) = 3"; a number in bold.
_LAST_SENTENCE = re.compile(r"(?:[.!?:]\*{0,2}\s+(?=[A-Z*\\$(])|\n)(?=\S)")
_REST = r"\$[^$]*\$|\\\((?:[^\\]|\\(?!\)))*\\\)"
_COUNT = re.compile(
    rf"(?i:(?:\*\*)?(?:therefore|thus|so|hence|in total|altogether|finally|consequently)\W+|\W*)"
    rf"(?i:there (?:are|is|exist) (?:only |exactly |precisely |a total of )?)"
    rf"(?:\*\*)?\$?(?P<count>{NUMBER})\$?(?:\*\*)?(?= [A-Za-z-])"
    rf"(?:[^,;=$\\]|{_REST})*(?:\b(?:which|that|where|with)\b(?:[^,;$\\]|{_REST})*)?"
)
_BOLD = re.compile(rf"\*\*\s*\$?(?P<count>{NUMBER})\$?\s*\*\*")
_VERIFIED = re.compile(r"(?:not|(?:in)?correct|right|wrong|valid|consistent|reasonable|verified|confirmed)\b")
_END_OF_PROOF = re.compile(r"\s*(?:\$?\\(?:blacksquare|square|Box|qed)\$?|[∎□■✅✔✓☑]\ufe0f?|Q\.E\.D\.)\s*$")
_REMARK = re.compile(r"\s\([^()$]*[A-Za-z]{3}[^()$]*\)[\s.]*$")  # behind the answer, in brackets
_CHOICE = re.compile(r"\([A-J]\)\s|[A-J][).:]\s")
_QUESTION = re.compile(r"(?:^|(?<=[.!?\n]))[^.!?\n]*\?\s*$")  # what a question says is no answer
_SENTENCE = re.compile(
    r"(?<=[A-J)]) is (?:the )?(?:correct|right)\b|。|\.\s+[A-Z(]|\n|,?\s+(?:because|since)\b|\.?\s*$"
)
_FOREIGN = re.compile(r"[^\W\d_\x00-\x7fͰ-Ͽ]")  # letters of other scripts than Latin and Greek
# Between two boxes of one list: `,`, "and", "or", with one noun before them and one name behind them.
_SEPARATOR = re.compile(r"(?:(?P<noun>(?!and )[a-z]{3,}) )?(?P<sign>[,;])? ?(?P<word>and|or)? ?(?:[A-Za-z][\w']* ?=)?")
_APPROXIMATION = re.compile(r"[\s$]*(?:\\approx|≈)[\s$]*")  # between the exact and the rounded answer
_NOISE = re.compile(r"(?:\\(?:text|mbox|q?quad|[()\[\],;:! ])|[${}*\s])+")
_NO_NOUNS = {"not", "then", "wait", "wrong", "but", "now", "actually", "incorrect"}
_BOXES_LIMIT = 20


def reference_answer(text: str) -> str:
    r"""Returns the reference answer that a text is: all of it, or what its last boxes hold if it is a solution."""
    boxed = _find_last_boxes(text)[0] if "boxed" in text else None
    return (boxed or text).strip()


def last_boxed(text: str, *, spaced: bool = True) -> str | None:
    r"""Returns the content of the last `\boxed{…}`, with balanced braces; None if no box is there or it never closes.

    `\boxed{\boxed{5}}` gives `5`. Escaped braces (`\{`) count as braces, as in the official reward. `spaced`: whether
    `\boxed {5}` is a box too. The time is linear in the length of the text, also for hostile text.
    """
    opening = _find_last_opening(text, len(text), _BOXES[:1] if spaced else _UNSPACED_BOXES)
    end = None if opening is None else _find_closing(text, opening[1])
    return None if end is None else text[opening[1] : end]


def _find_last_opening(text: str, stop: int, names: tuple[str, ...] = _BOXES) -> tuple[int, int] | None:
    """Returns where the last box before `stop` begins, and where its content does; None if there is no box."""
    while True:
        start = max([text.rfind(name, 0, stop) for name in names])  # faster than a generator
        if start < 0:
            return None
        match = _OPENING.match(text, start)
        if match is not None:
            return start, match.end()
        stop = start


def _find_closing(text: str, inside: int, braces: re.Pattern = _BRACE) -> int | None:
    """Returns the position of the brace that closes the one before `inside`; None if it never closes."""
    depth = 1
    for brace in braces.finditer(text, inside):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return brace.start()
    return None


def final_answer(text: str) -> str | None:
    r"""Returns the answer that a response ends with, as written; None if it has none.

    Searches the first turn, after the thinking; only its last `TAIL_CHARACTERS` for what is no box. Takes the first of
    these that exists:

    1. a value that is announced behind the last `\boxed{}` as the final answer
    2. the last `\boxed{}` that no "not" precedes; boxes with "and" or commas between them are one list
    3. what is between `<answer>` and `</answer>`
    4. an announced answer ("the answer is 5", "#### 5", "A: 5")
    5. the whole text, if it is nothing but an answer
    6. the last formula or number
    7. the whole text, if it is short
    """
    text = _BARE_BOX.sub(r"\\boxed{\1}", spoken_part(text))
    boxed, end = _find_last_boxes(text)
    if end is None:  # the last box never closes: the response was cut off
        return None
    if boxed is not None:
        return _find_announcement(text, max(end, len(text) - TAIL_CHARACTERS), _FINAL) or boxed
    text = _END_OF_PROOF.sub("", text[-TAIL_CHARACTERS:].strip())
    if tag := _TAG.search(text):
        inner = _unwrap(tag.group(1))
        return inner if _is_only_an_answer(inner) else final_answer(inner) or inner
    if (announced := _find_announcement(text, 0, _ANNOUNCEMENT)) is not None:
        return announced
    text = _QUESTION.sub("", text)
    short = (text[lead.end() :] if (lead := _LEAD.match(text)) else text).strip(" *")
    if _is_only_an_answer(short):
        return _unwrap(short)
    if (count := _find_count(text)) is not None:
        return count
    shorter = _REMARK.sub("", text)
    found = find_last_formula(shorter) or (find_last_formula(text) if shorter != text else None)
    return found or (text if len(text) < 40 else None)


def spoken_part(text: str) -> str:
    """Returns the text up to the mark of the end of a turn, behind the last `</think>`, before an open `<think>`."""
    start, end = 0, len(text)
    for mark in _END_MARK.finditer(text):
        if text[start : mark.start()].strip():
            end = mark.start()
            break
        start = mark.end()
    text = text[start:end]
    return text.rpartition("</think>")[2].partition("<think>")[0] if "think>" in text else text


def _find_last_boxes(text: str) -> tuple[str | None, int | None]:
    """Returns (content, end) of the last box, with the boxes before it that belong to the same list.

    (None, 0) means that no box is there, (None, None) that the last one does not close.
    """
    opening = _find_last_opening(text, len(text))
    if opening is None:
        return None, 0
    end = _find_closing(text, opening[1])
    end = last = _find_closing(text, opening[1], _PLAIN_BRACE) if end is None else end  # \left\{ may stand alone
    if end is None:
        return None, None
    for _ in range(_BOXES_LIMIT):
        if opening is None or end is None or not is_denied(text, opening[0], end + 1):
            break
        opening = _find_last_opening(text, opening[0])
        end = None if opening is None else _find_closing(text, opening[1])
    else:
        return "", last
    if opening is None or end is None:
        return "", last
    start, contents = opening[0], [text[opening[1] : end]]
    for _ in range(_BOXES_LIMIT - 1):
        before = _find_last_opening(text, start)
        end = _find_closing(text, before[1]) if before else None
        if end is not None and end >= start and len(contents) == 1 and text[before[1] : start].strip():
            contents = [text[before[1] : end]]  # this box is inside a larger one
        if end is None or end >= start:
            break
        if _APPROXIMATION.fullmatch(text, end + 1, start):
            contents[-1] = rf"{text[before[1] : end]} \approx {contents[-1]}"
            start = before[0]
            continue
        if not _is_list_separator(text[end + 1 : start]):
            break
        start = before[0]
        contents.append(text[before[1] : end])
    return "; ".join(reversed(list(dict.fromkeys(contents)))) if len(contents) > 1 else contents[0], last


def _is_list_separator(between: str) -> bool:
    """Returns whether two boxes with this text between them are one list."""
    if len(between) > 100:
        return False
    match = _SEPARATOR.fullmatch(_NOISE.sub(" ", between).strip())
    if match is None or not (match["sign"] or match["word"]):
        return False
    return match["noun"] is None or bool(match["word"]) and match["noun"] not in _NO_NOUNS


def _find_announcement(text: str, start: int, pattern: re.Pattern) -> str | None:
    """Returns the formula, number or letter that is announced last after `start`; None if there is none.

    It is empty if a text says of the only one that it is impossible.
    """
    doubted = None
    for match in reversed(list(pattern.finditer(text, start))):
        if _DOUBT.search(text[max(match.start() - 60, 0) : match.start()]):
            doubted = ""
            continue
        rest = text[match.end() :].lstrip(' *"\n')
        formula = MATH.match(rest)
        if formula is not None:
            return find_last_formula(rest[: _SENTENCE.search(rest, formula.end()).start()])
        sentence = rest[: _SENTENCE.search(rest).start()].strip(' *"')
        if not re.search(r"\w", sentence) or _VERIFIED.match(sentence):
            continue
        letter = _CHOICE.match(sentence)  # (C) $12$
        if _is_only_an_answer(sentence[letter.end() if letter else 0 :]) and not re.search(r", [a-z]{3}", sentence):
            return sentence if letter else _unwrap(sentence)
        clause = sentence.lstrip(", ").partition(", ")[0]
        if re.fullmatch(r"[A-J]", clause):
            return clause
        formula = find_last_formula(clause if re.match(r"[-+$\\\d]", clause) else sentence)
        if formula is not None:
            return formula
    return doubted


def _find_count(text: str) -> str | None:
    """Returns the number of things that the last sentence says there are, or the one number that is bold in it."""
    start = max((match.end() for match in _LAST_SENTENCE.finditer(text)), default=0)
    sentence = text[start:].strip()
    match = _COUNT.fullmatch(sentence)
    found = [match["count"]] if match else [bold["count"] for bold in _BOLD.finditer(sentence)]
    position = sentence.find(found[0]) if len(found) == 1 else -1
    return found[0] if position >= 0 and not is_denied(sentence, position, position + len(found[0])) else None


def _is_only_an_answer(text: str) -> bool:
    """Returns whether a text is nothing but an answer: no prose, and no formula inside prose."""
    if len(text) > 1000 or not text:
        return False
    outside = MATH.sub(" ", text)
    if outside != text:
        return not outside.strip(" .,;*") and len(MATH.findall(text)) == 1
    prose = re.sub(r"\\[A-Za-z]+|\{[^{}]*\}", " ", text)
    words = re.findall(r"[^\W\d_]{2,}", prose)
    return "$" not in text.replace(r"\$", "").strip("$") and len(words) <= 2 and not _FOREIGN.search(text)


def _unwrap(text: str) -> str:
    """Returns a formula without its dollars or brackets."""
    match = MATH.fullmatch(text.strip(" .,;*"))
    return text if match is None else match.group(match.lastgroup)
