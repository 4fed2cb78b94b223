"""Hygiene of training problems: none overlaps with an evaluation set, occurs twice, or has two answers.

Problems are compared by their normal form (`normal_form.py`). A training problem is left out, in this order, if

1. it overlaps with a problem of an evaluation set: their normal forms are equal, its own contains the other's (as when
   DAPO-Math-17k appends "… Give m + n."), or the two are nearly the same;
2. another training problem has the same normal form and another answer, a contradiction: then all of them are left out;
3. an earlier training problem has the same normal form (a "duplicate"), or is nearly the same and has the same answer
   (a "near duplicate").

Two texts are nearly the same if they contain the same numbers, each equally often, and share at least nine tenths of
the union of their shingles, the runs of three words or symbols (Jaccard index). All such pairs are found exactly, not
by sampled hashes, so the result is the same on every machine. The order of the problems is kept. Equal texts are
compared once, so that a file which repeats each problem a hundred times costs little more than its distinct problems.
"""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

from nft_jax.data.files import Problem
from nft_jax.data.normal_form import answer_key, normalize, remove_spaces

# A shorter normal form may occur in another by chance: "compute1+1" in "compute1+1/2".
SHORTEST_INSIDE = 32
_STRIDE = SHORTEST_INSIDE // 2
_TOKEN = re.compile(r"[a-z]+|\d+(?:\.\d+)?|\S")
_RANK = {"contradiction": 0, "duplicate": 1, "near duplicate": 2, "overlap": 3}
_MATCH_WORDS = {"same": "the same", "inside": "with more text around", "near": "nearly the same"}


class Removal(NamedTuple):
    """A training problem that was left out, and the problem that it matches.

    Attributes:
      id: Id of the training problem.
      reason: "overlap", "contradiction", "duplicate" or "near duplicate".
      source: The evaluation set of an overlap, else "train".
      match_id: Id of the matching problem in `source`.
      match: "same", "inside" (the training problem contains the matching one) or "near".
    """

    id: str
    reason: str
    source: str
    match_id: str
    match: str

    @property
    def category(self) -> str:
        """The reason, with the evaluation set of an overlap: "overlap with aime24"."""
        return self.reason if self.source == "train" else f"{self.reason} with {self.source}"


class HygieneReport(NamedTuple):
    """The result of `clean`.

    Attributes:
      problems: The training problems that are left, in their order.
      given: How many there were before.
      removals: The problems left out; one that overlaps with two evaluation sets has two entries.
    """

    problems: list[Problem]
    given: int
    removals: list[Removal]

    @property
    def counts(self) -> dict[str, int]:
        """How many problems were left out, by category."""
        return dict(Counter(removal.category for removal in self.removals))

    def table(self) -> str:
        """Formats what was left out, and why, as text."""
        left = len(self.problems)
        lines = [f"{self.given} training problems: {left} kept, {self.given - left} left out"]
        for category, count in self.counts.items():
            matches = Counter(removal.match for removal in self.removals if removal.category == category)
            detail = ", ".join(f"{matches[match]} {words}" for match, words in _MATCH_WORDS.items() if matches[match])
            lines.append(f"  {count:>6}  {category}" + (f" ({detail})" if category.startswith("overlap") else ""))
        return "\n".join(lines)

    def to_json(self) -> dict:
        """Returns everything but the problems as plain JSON values."""
        return {
            "given": self.given,
            "kept": len(self.problems),
            "left_out": self.counts,
            "removals": [removal._asdict() for removal in self.removals],
        }


def clean(problems: Sequence[Problem], evaluations: Mapping[str, Sequence[Problem]]) -> HygieneReport:
    """Leaves out training problems by the rules of this module; `evaluations` maps names to evaluation sets."""
    make = _EntryMaker()
    entries = [make(problem) for problem in problems]
    held_out = {name: [make(problem) for problem in part] for name, part in evaluations.items()}
    removals = _find_overlaps(entries, held_out)
    removals |= _find_contradictions(entries, [place for place in range(len(entries)) if place not in removals])
    removals |= _find_duplicates(entries, [place for place in range(len(entries)) if place not in removals])
    sets = [*evaluations]

    def rank(removal):
        return _RANK[removal.reason], sets.index(removal.source) if removal.reason == "overlap" else 0

    in_order = [removal for place in sorted(removals) for removal in removals[place]]
    kept = [problem for place, problem in enumerate(problems) if place not in removals]
    return HygieneReport(kept, len(problems), sorted(in_order, key=rank))


class _ProblemText:
    """The text of a problem in the forms by which it is compared; problems of one normalized text share one.

    Attributes:
      key: Its normal form.
      tokens: The words, numbers and symbols of the normal form.
      numbers: The numbers among them, sorted.
    """

    def __init__(self, normalized: str):
        self.key = remove_spaces(normalized)
        self.tokens = _TOKEN.findall(normalized)
        self.numbers = tuple(sorted(token for token in self.tokens if token[0].isdecimal()))

    def shingles(self) -> frozenset[tuple[str, ...]]:
        """Returns its runs of three tokens, or all of its tokens as one run if there are fewer."""
        tokens = self.tokens
        return frozenset(zip(tokens, tokens[1:], tokens[2:], strict=False)) or frozenset([tuple(tokens)])


class _Entry(NamedTuple):
    """A problem as it is compared."""

    id: str
    answer: Hashable
    text: _ProblemText


class _EntryMaker:
    """Makes the entries of problems; equal texts and equal answers are normalized once."""

    def __init__(self):
        self._share = functools.cache(_ProblemText)
        self._text = functools.cache(lambda text: self._share(normalize(text)))
        self._answer = functools.cache(answer_key)

    def __call__(self, problem: Problem) -> _Entry:
        return _Entry(problem.id, self._answer(problem.answer), self._text(problem.problem))


class _Match(NamedTuple):
    """The problem of an evaluation set that a text overlaps with."""

    source: str
    id: str
    match: str


def _find_overlaps(entries: list[_Entry], held_out: dict[str, list[_Entry]]) -> dict[int, list[Removal]]:
    """Returns the removals, by place, of all problems that overlap; at most one with each set, the closest match."""
    first: dict = {}
    for name, part in held_out.items():
        for entry in part:
            first.setdefault((name, entry.text), (name, entry))
    matches = _match_texts(list(dict.fromkeys(entry.text for entry in entries)), [*first.values()])
    return {
        place: [Removal(entry.id, "overlap", *match) for match in matches[entry.text].values()]
        for place, entry in enumerate(entries)
        if entry.text in matches
    }


def _match_texts(
    texts: list[_ProblemText], everything: list[tuple[str, _Entry]]
) -> dict[_ProblemText, dict[str, _Match]]:
    """Returns the matches of each text that overlaps, by the name of the set."""
    matches: dict[_ProblemText, dict[str, _Match]] = defaultdict(dict)

    def add(text, name, other, match):
        matches[text].setdefault(name, _Match(name, other.id, match))

    same, inside = defaultdict(list), _SubstringIndex(everything)
    for name, entry in everything:
        same[entry.text.key].append((name, entry))
    for text in texts:
        for name, other in same.get(text.key, ()):
            add(text, name, other, "same")
        for name, other in inside.search(text.key):
            add(text, name, other, "inside")
    first = len(everything)
    for earlier, later in _near_pairs([entry.text for _, entry in everything] + texts):
        if earlier < first <= later:
            add(texts[later - first], *everything[earlier], "near")
    return dict(matches)


class _SubstringIndex:
    """An index of many texts that finds those contained in another text.

    Wherever an indexed text occurs, it covers a whole stretch of `_STRIDE` characters that begins at a multiple of
    `_STRIDE`. The index therefore lists each text under every stretch that may be the first one it covers.
    """

    def __init__(self, everything: Sequence[tuple[str, _Entry]]):
        self.stretches = defaultdict(list)
        for name, entry in everything:
            key = entry.text.key
            if len(key) >= SHORTEST_INSIDE:
                for offset in range(_STRIDE):
                    self.stretches[key[offset : offset + _STRIDE]].append((offset, name, entry))

    def search(self, key: str) -> Iterator[tuple[str, _Entry]]:
        """Yields the set and the entry of each indexed text that `key` contains."""
        for place in range(0, len(key) - _STRIDE + 1, _STRIDE):
            for offset, name, entry in self.stretches.get(key[place : place + _STRIDE], ()):
                if place >= offset and _occurs_at(key, place - offset, entry.text.key):
                    yield name, entry


def _occurs_at(text: str, start: int, part: str) -> bool:
    """Returns whether `text` contains `part` at `start` without cutting a number at either end."""
    end = start + len(part)
    before, after = text[start - 1 : start + 1] if start else "", text[end - 1 : end + 1] if end < len(text) else ""
    return text.startswith(part, start) and not before.isdecimal() and not after.isdecimal()


def _find_contradictions(entries: list[_Entry], places: list[int]) -> dict[int, list[Removal]]:
    """Returns the removals, by place, of all problems that share their normal form with one of another answer."""
    groups = defaultdict(list)
    for place in places:
        groups[entries[place].text.key].append(place)
    removals = {}
    for group in groups.values():
        first = group[0]
        other = next((place for place in group if entries[place].answer != entries[first].answer), None)
        for place in group if other is not None else ():
            match = other if entries[place].answer == entries[first].answer else first
            removals[place] = [Removal(entries[place].id, "contradiction", "train", entries[match].id, "same")]
    return removals


def _find_duplicates(entries: list[_Entry], places: list[int]) -> dict[int, list[Removal]]:
    """Returns the removals, by place, of all problems that repeat an earlier one that is kept."""
    removals: dict[int, list[Removal]] = {}
    first: dict[str, int] = {}
    for place in places:
        if (earlier := first.setdefault(entries[place].text.key, place)) != place:
            removals[place] = [Removal(entries[place].id, "duplicate", "train", entries[earlier].id, "same")]
    left = [place for place in places if place not in removals]
    for one, other in _near_pairs([entries[place].text for place in left]):
        earlier, later = left[one], left[other]
        same_answer = entries[earlier].answer == entries[later].answer
        if same_answer and earlier not in removals and later not in removals:
            removals[later] = [Removal(entries[later].id, "near duplicate", "train", entries[earlier].id, "near")]
    return removals


def _near_pairs(texts: list[_ProblemText]) -> Iterator[tuple[int, int]]:
    """Yields the places (earlier, later) of every two texts that are nearly the same, in the order of the later."""
    buckets = defaultdict(list)
    for place, text in enumerate(texts):
        buckets[text.numbers].append(place)
    for bucket in buckets.values():
        if len(bucket) > 1:
            for earlier, later in _similar_pairs([texts[place].shingles() for place in bucket]):
                yield bucket[earlier], bucket[later]


def _similar_pairs(sets: list[frozenset]) -> Iterator[tuple[int, int]]:
    """Yields the places (earlier, later) of every two sets whose Jaccard index is at least 9/10.

    Two such sets share at least nine tenths of either set, so they share one of the rarest elements of each, a tenth of
    it plus one. Only sets that share such an element are compared.
    """
    frequency = Counter(element for each in sets for element in each)
    holders = defaultdict(list)
    for place, own in enumerate(sets):
        rarest = sorted(own, key=lambda element: (frequency[element], element))[: len(own) // 10 + 1]
        for earlier in sorted({other for element in rarest for other in holders[element]}):
            if 10 * len(own & sets[earlier]) >= 9 * len(own | sets[earlier]):
                yield earlier, place
        for element in rarest:
            holders[element].append(place)
