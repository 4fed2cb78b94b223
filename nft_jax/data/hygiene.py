r"""Clean training problems: none that an evaluation asks too, none twice, none with two answers.

Problems are compared by their `normal_form`: what is left of a text when case, spaces, punctuation and the LaTeX that
only lays it out are gone. Operators, brackets and commands stay, so `1+1` and `1-1`, or `\sin` and `\cos`, differ.

A training problem is left out, in this order, if

1. it overlaps with a problem of an evaluation set: has the same normal form, has all of the other's inside its own
   ("… Give m + n." put behind it, as in DAPO-Math-17k), or is nearly the same;
2. another training problem has the same normal form and another answer: then all of them are;
3. an earlier training problem has the same normal form (a "duplicate"), or is nearly the same and has the same answer
   (a "near duplicate").

Two texts are nearly the same if they have the same numbers, each as often, and share at least nine tenths of all their
runs of three words or symbols (Jaccard). That is found exactly, not by sampled hashes: the same problems give the same
result, on every machine. The order of the problems is kept.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from nft_jax.data.files import Problem

# Of shorter normal forms, one is found inside another by chance: "compute1+1" in "compute1+1/2".
SHORTEST_INSIDE = 32
_STRIDE = SHORTEST_INSIDE // 2

_LAYOUT = re.compile(
    r"\\(?:begin|end)\s*\{[a-z*]+\}"
    r"|\\(?:left|right|[Bb]igg?[lrm]?|(?:display|text)style|(?:no)?limits|q?quad|text(?:bf|it|rm)?|math(?:rm|bf|it)"
    r"|boldsymbol|operatorname|[mh]box|rm|bf|it)(?![a-z])"
    r"|\\[,!;:>\s()\[\]\\]",
    re.IGNORECASE,
)
_ALIKE = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "frac"),
    **dict.fromkeys(("ldots", "cdots", "dotsc", "dotsb", "dotsm", "dotsi", "dotso"), "dots"),
    **{"leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "times": "*", "cdot": "*"},
}
_COMMAND = re.compile(r"\\([a-z]+)")
_SYMBOLS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "≤": " le ", "≥": " ge ", "≠": " ne "})
_SHORT_FRACTION = re.compile(r"(\\[dtc]?frac)\s*(\d)\s*(\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_PUNCTUATION = re.compile(r"[$,;:?\"'`~&‘’“”、。]|(?<!\d)\.|\.(?!\d)")
_BRACED_ONE = re.compile(r"\{\s*([a-z]+|\d+(?:\.\d+)?)\s*\}")
_TOKEN = re.compile(r"[a-z]+|\d+(?:\.\d+)?|\S")
_LOOSE_SPACE = re.compile(r"(?<!\d) | (?!\d)")


class Removal(NamedTuple):
    """Why a training problem was left out.

    `id`      of the problem
    `reason`  "overlap", "contradiction", "duplicate" or "near duplicate"
    `source`  the evaluation set of an overlap, else "train"
    `like`    the id of the problem there that it is like
    `how`     "same", "inside" (the other's text is inside this one's) or "near"
    """

    id: str
    reason: str
    source: str
    like: str
    how: str


class HygieneReport(NamedTuple):
    """The problems that are left, in their order, of `given` many; one that overlaps with two sets has two removals."""

    problems: list[Problem]
    given: int
    removals: list[Removal]

    @property
    def counts(self) -> dict[str, int]:
        """How many problems were left out, by reason; overlaps by evaluation set, "overlap with aime24"."""
        return dict(Counter(_title(removal) for removal in self.removals))

    def table(self) -> str:
        """What was left out and why, as text for people."""
        left = len(self.problems)
        lines = [f"{self.given} training problems: {left} kept, {self.given - left} left out"]
        for title, count in self.counts.items():
            hows = Counter(removal.how for removal in self.removals if _title(removal) == title)
            detail = ", ".join(f"{hows[how]} {words}" for how, words in _WORDS.items() if hows[how])
            lines.append(f"  {count:>6}  {title}" + (f" ({detail})" if title.startswith("overlap") else ""))
        return "\n".join(lines)

    def as_json(self) -> dict:
        """All of it but the problems themselves, as plain JSON values."""
        return {
            "given": self.given,
            "kept": len(self.problems),
            "left_out": self.counts,
            "removals": [removal._asdict() for removal in self.removals],
        }


_WORDS = {"same": "the same", "inside": "with more text around", "near": "nearly the same"}


def clean(problems: Sequence[Problem], evaluations: Mapping[str, Sequence[Problem]]) -> HygieneReport:
    """The training problems without those that the module's rules leave out; `evaluations` go by their names."""
    texts = [_Text(problem) for problem in problems]
    held_out = {name: [_Text(problem) for problem in part] for name, part in evaluations.items()}
    removals = {place: found for place, found in enumerate(_overlaps(texts, held_out)) if found}
    removals |= _contradictions(texts, [place for place in range(len(texts)) if place not in removals])
    removals |= _duplicates(texts, [place for place in range(len(texts)) if place not in removals])
    kept = [problem for place, problem in enumerate(problems) if place not in removals]
    listed = [removal for place in sorted(removals) for removal in removals[place]]
    return HygieneReport(kept, len(problems), sorted(listed, key=lambda removal: _rank(removal, [*evaluations])))


def normal_form(text: str) -> str:
    r"""What makes a problem the same problem: `Find $\left(1,000\right) x_{2}$.` and `find (1000)x_2` are one."""
    return _LOOSE_SPACE.sub("", _plain(text))


def answers_match(one: str, other: str) -> bool:
    """Whether two reference answers are the same text, up to layout, or the same number."""
    return _answer(one) == _answer(other)


class _Text:
    """A problem as it is compared."""

    def __init__(self, problem: Problem):
        plain = _plain(problem.problem)
        self.id = problem.id
        self.answer = problem.answer
        self.key = _LOOSE_SPACE.sub("", plain)
        self.tokens = _TOKEN.findall(plain)
        self.numbers = tuple(sorted(token for token in self.tokens if token[0].isdecimal()))

    def shingles(self) -> frozenset[tuple[str, ...]]:
        """Its runs of three tokens; all of it where it is shorter."""
        tokens = self.tokens
        return frozenset(zip(tokens, tokens[1:], tokens[2:], strict=False)) or frozenset([tuple(tokens)])


def _plain(text: str) -> str:
    """The normal form with spaces between words, by which they can be counted."""
    text = unicodedata.normalize("NFKC", text).translate(_SYMBOLS).lower()
    text = text.replace("{,}", ",").replace("\\!", "")
    text = _SHORT_FRACTION.sub(r"\1 \2 \3", text)
    text = _LAYOUT.sub(" ", text)
    text = _COMMAND.sub(lambda found: f" {_ALIKE.get(found[1], found[1])} ", text)
    text = _THOUSANDS.sub("", text)
    text = _PUNCTUATION.sub(" ", text)
    # Before the backslashes go: \{x\} is a set, {x} is x.
    text = _BRACED_ONE.sub(r" \1 ", text).replace("\\", " ")
    return " ".join(text.split())


def _answer(text: str) -> str | Fraction:
    key = normal_form(text)
    try:
        return Fraction(key)
    except (ValueError, ZeroDivisionError):
        return key


def _overlaps(texts: list[_Text], held_out: dict[str, list[_Text]]) -> list[list[Removal]]:
    """For each text its overlaps, at most one with each evaluation set: the closest."""
    found: list[dict[str, Removal]] = [{} for _ in texts]

    def note(place, name, like, how):
        found[place].setdefault(name, Removal(texts[place].id, "overlap", name, like.id, how))

    everything = [(name, text) for name, part in held_out.items() for text in part]
    same, inside = defaultdict(list), _Finder(everything)
    for name, text in everything:
        same[text.key].append((name, text))
    for place, text in enumerate(texts):
        for name, other in same.get(text.key, ()):
            note(place, name, other, "same")
        for name, other in inside(text.key):
            note(place, name, other, "inside")
    first = len(everything)
    for earlier, later in _near([text for _, text in everything] + texts):
        if earlier < first <= later:
            note(later - first, *everything[earlier], "near")
    return [list(each.values()) for each in found]


class _Finder:
    """Finds which of many texts are inside another.

    Wherever a text is, it covers a whole stretch of `_STRIDE` characters that begins at a multiple of `_STRIDE`: it is
    known by all such stretches that it may cover first.
    """

    def __init__(self, named: Sequence[tuple[str, _Text]]):
        self.holders = defaultdict(list)
        for name, text in named:
            if len(text.key) >= SHORTEST_INSIDE:
                for offset in range(_STRIDE):
                    self.holders[text.key[offset : offset + _STRIDE]].append((offset, name, text))

    def __call__(self, key: str) -> Iterator[tuple[str, _Text]]:
        for place in range(0, len(key) - _STRIDE + 1, _STRIDE):
            for offset, name, text in self.holders.get(key[place : place + _STRIDE], ()):
                if place >= offset and _stands_at(key, place - offset, text.key):
                    yield name, text


def _stands_at(text: str, start: int, part: str) -> bool:
    """Whether `part` is in `text` at `start`, and no number at its ends goes on beyond them."""
    end = start + len(part)
    before, after = text[start - 1 : start + 1] if start else "", text[end - 1 : end + 1] if end < len(text) else ""
    return text.startswith(part, start) and not before.isdecimal() and not after.isdecimal()


def _contradictions(texts: list[_Text], places: list[int]) -> dict[int, list[Removal]]:
    """All texts of which another with the same normal form has another answer."""
    groups = defaultdict(list)
    for place in places:
        groups[texts[place].key].append(place)
    removals = {}
    for group in groups.values():
        for place in group if len(group) > 1 else ():
            others = (other for other in group if not answers_match(texts[place].answer, texts[other].answer))
            if (other := next(others, None)) is not None:
                like = texts[other].id
                removals[place] = [Removal(texts[place].id, "contradiction", "train", like, "same")]
    return removals


def _duplicates(texts: list[_Text], places: list[int]) -> dict[int, list[Removal]]:
    """All texts that an earlier one of those that stay makes superfluous."""
    removals: dict[int, list[Removal]] = {}
    first: dict[str, int] = {}
    for place in places:
        if (earlier := first.setdefault(texts[place].key, place)) != place:
            removals[place] = [Removal(texts[place].id, "duplicate", "train", texts[earlier].id, "same")]
    left = [place for place in places if place not in removals]
    for one, other in _near([texts[place] for place in left]):
        earlier, later = left[one], left[other]
        alike = answers_match(texts[earlier].answer, texts[later].answer)
        if alike and earlier not in removals and later not in removals:
            removals[later] = [Removal(texts[later].id, "near duplicate", "train", texts[earlier].id, "near")]
    return removals


def _near(texts: list[_Text]) -> Iterator[tuple[int, int]]:
    """The places (earlier, later) of every two texts that are nearly the same; for each later one in order."""
    buckets = defaultdict(list)
    for place, text in enumerate(texts):
        buckets[text.numbers].append(place)
    for bucket in buckets.values():
        if len(bucket) > 1:
            for earlier, later in _similar([texts[place].shingles() for place in bucket]):
                yield bucket[earlier], bucket[later]


def _similar(sets: list[frozenset]) -> Iterator[tuple[int, int]]:
    """The places of every two sets of which nine tenths of the union are common.

    Such two have at least nine tenths of either in common, so they meet among the rarest tenth of each and one more:
    only sets that meet there are compared.
    """
    common = Counter(element for each in sets for element in each)
    holders = defaultdict(list)
    for place, own in enumerate(sets):
        rarest = sorted(own, key=lambda element: (common[element], element))[: len(own) // 10 + 1]
        for earlier in sorted({other for element in rarest for other in holders[element]}):
            if 10 * len(own & sets[earlier]) >= 9 * len(own | sets[earlier]):
                yield earlier, place
        for element in rarest:
            holders[element].append(place)


def _title(removal: Removal) -> str:
    return removal.reason if removal.source == "train" else f"{removal.reason} with {removal.source}"


def _rank(removal: Removal, names: list[str]) -> tuple[int, int]:
    reasons = ("contradiction", "duplicate", "near duplicate", "overlap")
    return reasons.index(removal.reason), names.index(removal.source) if removal.reason == "overlap" else 0
