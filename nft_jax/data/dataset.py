"""The data of one run: tokenizer, prompt tables by split, and worked examples for the warm start."""

from pathlib import Path
from typing import NamedTuple

from nft_jax.config import Config
from nft_jax.data import arithmetic
from nft_jax.data.prompts import ExampleTable, PromptTable, build_examples, build_prompts, render
from nft_jax.data.sources import Problem, load_problems
from nft_jax.data.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece


class Dataset(NamedTuple):
    """`tables` has "train", and "validation" and "test" where given; `examples` are there for a warm start only."""

    tokenizer: Tokenizer
    tables: dict[str, PromptTable]
    examples: ExampleTable | None


def load_dataset(config: Config, folder: Path) -> Dataset:
    """Loads or generates the problems and the tokenizer, and tokenises them; a trained tokenizer is kept in `folder`.

    Raises:
      ValueError, FileNotFoundError: for anything wrong with a file, with its name and line.
    """
    problems = _problems(config)
    tokenizer = _tokenizer(config, problems, folder)
    form = {"template": config.data.template, "prompt_limit": config.data.prompt_limit}
    tables = {name: build_prompts(part, tokenizer, **form) for name, part in problems.items()}
    examples = None
    if config.warm_start.steps and not config.base:
        examples = build_examples(
            _pairs(config, problems["train"], tokenizer),
            tokenizer,
            prompt_limit=config.data.prompt_limit,
            answer_limit=config.rollout.answer_limit,
        )
    return Dataset(tokenizer, tables, examples)


def _problems(config: Config) -> dict[str, list[Problem]]:
    data = config.data
    if not data.train:
        return arithmetic.split(arithmetic.all_problems(data.largest))
    fields = {
        "problem_field": data.problem_field,
        "answer_field": data.answer_field,
        "solution_field": data.solution_field,
    }
    paths = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: load_problems(path, **fields) for name, path in paths.items() if path}


def _tokenizer(config: Config, problems: dict[str, list[Problem]], folder: Path) -> Tokenizer:
    if config.data.tokenizer:
        return load_tokenizer(config.data.tokenizer)
    if config.data.train:
        raise ValueError(
            "config.data.train names a problem file, so config.data.tokenizer must name a tokenizer: a Hugging Face "
            "folder (tokenizer.json) or a SentencePiece file (.model)"
        )
    path = folder / "tokenizer" / "arithmetic.model"
    path.parent.mkdir(parents=True, exist_ok=True)
    return load_tokenizer(train_sentencepiece([p.problem + p.solution for p in problems["train"]], path))


def _pairs(config: Config, problems: list[Problem], tokenizer: Tokenizer) -> list[tuple[str, str]]:
    if not config.data.train:
        warm = config.warm_start
        pairs = arithmetic.corpus(problems, size=warm.examples, wrong_share=warm.wrong_share, seed=config.seed)
    else:
        pairs = [(problem.problem, boxed(problem)) for problem in problems if problem.solution]
        if not pairs:
            raise ValueError(
                f"{config.data.train}: no line has a field {config.data.solution_field!r}, so there is nothing for the "
                f"warm start; name the field by config.data.solution_field, or set config.warm_start.steps=0"
            )
    return [(render(problem, tokenizer, template=config.data.template), response) for problem, response in pairs]


def boxed(problem: Problem) -> str:
    r"""The worked solution, ending in `\boxed{answer}` if it has no box of its own: what the graders look for."""
    if "\\boxed{" in problem.solution:
        return problem.solution
    return f"{problem.solution}\n\\boxed{{{problem.answer}}}"
