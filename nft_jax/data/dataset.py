"""The data of one run: tokenizer, prompt tables by split, and worked examples for the warm start."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nft_jax.config import Config
from nft_jax.data import arithmetic, benchmarks
from nft_jax.data.files import Problem
from nft_jax.data.hygiene import HygieneReport, clean
from nft_jax.data.prompts import ExampleTable, PromptTable, build_examples, build_prompts, render
from nft_jax.data.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece
from nft_jax.processes import distributed
from nft_jax.run import remote_workdir
from nft_jax.verify import check_reference

SPLITS = ("train", "validation", "test")


class Dataset(NamedTuple):
    """`tables` has "train", and "validation" and "test" where given; `examples` are there for a warm start only.

    `cleaned` says what hygiene left out of the training problems, where it was asked for.
    """

    tokenizer: Tokenizer
    tables: dict[str, PromptTable]
    examples: ExampleTable | None
    hygiene: HygieneReport | None = None


def load_dataset(config: Config, folder: Path, problems: dict[str, list[Problem]] | None = None) -> Dataset:
    """Loads or generates the problems and the tokenizer, and tokenises them; a trained tokenizer is kept in `folder`.

    `problems`, by name of their table, stand for the config's own, which are then not read.

    Raises:
      ValueError, FileNotFoundError: for anything wrong with a file, with its name and line.
      ValueError: when hygiene leaves no training problem.
    """
    own, cleaned = problems is None, None
    problems = read_splits(config) if own else problems
    if own and config.data.train and config.data.hygiene:
        cleaned = _cleaned(config, problems)
        problems = problems | {"train": cleaned.problems}
    tokenizer = _tokenizer(config, folder)
    data = config.data
    form = {"template": data.template, "max_prompt_tokens": data.max_prompt_tokens, "long_prompts": data.long_prompts}
    tables = {
        # A table goes by the name of its file, where the config names one.
        name: build_prompts(part, tokenizer, **form, source=(own and getattr(data, name)) or name)
        for name, part in problems.items()
    }
    examples = None
    if own and config.warm_start.steps and not config.base:
        examples = build_examples(
            _pairs(config, problems["train"], tokenizer),
            tokenizer,
            max_prompt_tokens=config.data.max_prompt_tokens,
            max_answer_tokens=config.rollout.max_answer_tokens,
        )
    return Dataset(tokenizer, tables, examples, cleaned)


def read_splits(config: Config, splits: Sequence[str] = SPLITS) -> dict[str, list[Problem]]:
    """The problems of those of `splits` that the config has; files of others are not read."""
    data = config.data
    generated = {} if data.train else arithmetic.split(arithmetic.all_problems(data.arithmetic_max_operand))
    files = {name: getattr(data, name) for name in splits if getattr(data, name)}
    return {
        name: read_problems(config, files[name]) if name in files else generated[name]
        for name in splits
        if name in files or name in generated
    }


def read_problems(config: Config, name: str) -> list[Problem]:
    """The problems of a name (`registry.read`); of files, the fields that the config names."""
    data = config.data
    fields = {"problem_field": data.problem_field, "answer_field": data.answer_field}
    return benchmarks.read(name, root=data.folder, **fields, solution_field=data.solution_field)


def _cleaned(config: Config, problems: dict[str, list[Problem]]) -> HygieneReport:
    data = config.data
    evaluations = {getattr(data, split): problems[split] for split in problems if split != "train"}
    for name in filter(None, map(str.strip, data.exclude.split(","))):
        if name not in evaluations:
            evaluations[name] = read_problems(config, name)
    cleaned = clean(problems["train"], evaluations)
    if not cleaned.problems:
        raise ValueError(
            f"config.data.train={data.train}: no problem is left\n{cleaned.table()}\n"
            "give other problems, or config.data.hygiene=false"
        )
    return cleaned


def _tokenizer(config: Config, folder: Path) -> Tokenizer:
    if config.data.tokenizer:
        return load_tokenizer(config.data.tokenizer)
    if config.data.train:
        raise ValueError(
            "config.data.train names a problem file, so config.data.tokenizer must name a tokenizer: a Hugging Face "
            "folder (tokenizer.json) or a SentencePiece file (.model)"
        )
    path = folder / "tokenizer" / "arithmetic.model"
    texts = [problem.problem + problem.solution for problem in read_splits(config, ("train",))["train"]]

    def train():
        path.parent.mkdir(parents=True, exist_ok=True)
        train_sentencepiece(texts, path)

    distributed.on_process_0(train, "tokenizer")
    remote_workdir.level(folder)
    return load_tokenizer(path)


def _pairs(config: Config, problems: list[Problem], tokenizer: Tokenizer) -> list[tuple[str, str]]:
    if not config.data.train:
        warm = config.warm_start
        pairs = arithmetic.draw_examples(
            problems, size=warm.arithmetic_examples, incorrect_share=warm.incorrect_share, seed=config.seed
        )
    else:
        pairs = [(problem.problem, box_answer(problem)) for problem in problems if problem.solution]
        if not pairs:
            raise ValueError(
                f"{config.data.train}: no line has a field {config.data.solution_field!r}, so there is nothing for the "
                f"warm start; name the field by config.data.solution_field, or set config.warm_start.steps=0"
            )
    return [(render(problem, tokenizer, template=config.data.template), response) for problem, response in pairs]


def box_answer(problem: Problem) -> str:
    r"""The worked solution, ending in `\boxed{answer}` if it has no box of its own: what the graders look for."""
    if "\\boxed{" in problem.solution:
        return problem.solution
    return f"{problem.solution}\n\\boxed{{{problem.answer}}}"


def unreadable_answers(grader: str, tables: dict[str, PromptTable], most: int = 3) -> list[str]:
    """A line for each table with reference answers that the grader "math" can't read, naming the first of them."""
    lines = []
    for name, table in tables.items() if grader == "math" else ():
        found = [
            (problem.id, answer, reason)
            for problem, answer in zip(table.problems, table.answers, strict=True)
            if (reason := check_reference(answer))
        ]
        if found:
            named = "; ".join(f"{where}, {answer[:40]!r}: {reason}" for where, answer, reason in found[:most])
            lines.append(
                f"problems  {name}: of {len(table.answers)} reference answers {len(found)} can't be read by the grader "
                f"'math', which then takes the same wording alone as right ({named}{'; …' * (len(found) > most)})"
            )
    return lines
