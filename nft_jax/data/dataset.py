"""The data of one run: its tokenizer, its prompt tables by split, and the examples of its warm start."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from nft_jax.config import Config
from nft_jax.data import arithmetic, benchmarks
from nft_jax.data.fields import parse_fields
from nft_jax.data.files import Problem, ProblemSet
from nft_jax.data.generated import ARITHMETIC, GENERATED, generate, is_generated
from nft_jax.data.hygiene import HygieneReport
from nft_jax.data.hygiene_cache import clean_once
from nft_jax.data.prompts import ExampleTable, PromptTable, build_examples, build_prompts, render_prompts
from nft_jax.data.references import check_references
from nft_jax.data.sentencepiece_training import train_sentencepiece
from nft_jax.data.tokenizer import Tokenizer, load_tokenizer
from nft_jax.files import cache_folder
from nft_jax.verify import check_reference
from nft_jax.verify.gsm8k import gsm8k


class Dataset(NamedTuple):
    """The data of one run.

    Attributes:
      tables: The prompt table of each split: "train", and "validation" and "test" if the config has them.
      examples: The examples of the warm start, if the run has one.
      held_out_examples: Examples of the validation problems, if the warm start measures their loss and there are any.
      hygiene: What hygiene left out of the training problems, if the config enables it.
      sets: The problems of each table that was read, with where they come from and what was left out.
      notes: What a user should know of the data before the run, a line each.
    """

    tokenizer: Tokenizer
    tables: dict[str, PromptTable]
    examples: ExampleTable | None
    held_out_examples: ExampleTable | None = None
    hygiene: HygieneReport | None = None
    sets: Mapping[str, ProblemSet] = MappingProxyType({})
    notes: tuple[str, ...] = ()


def load_dataset(config: Config, folder: Path, problems: dict[str, list[Problem]] | None = None) -> Dataset:
    """Loads or generates the problems and the tokenizer, and tokenizes the problems.

    Args:
      folder: The workdir; a tokenizer that this run trains is kept in it.
      problems: The problems of each table, which replace the config's; those are then not read.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is invalid (with its name and line), hygiene leaves no training problem, or the grader can
        match no reference answer of a table.
    """
    own, hygiene = problems is None, None
    problems = read_splits(config) if own else problems
    if own and is_generated(name_set(config, "train")):
        if config.data.exclude:
            raise ValueError(
                f"config.data.exclude={config.data.exclude!r}: generated problems are not cleaned; give a file or set "
                "by config.data.train, or config.data.exclude=''"
            )
    elif own and config.data.hygiene:
        hygiene = _clean_training_problems(config, problems)
        left_out = {"by hygiene": hygiene.given - len(hygiene.problems)}
        problems = problems | {"train": problems["train"].keep(hygiene.problems, left_out)}
    if own and "validation" not in problems and not is_generated(name_set(config, "train")):
        problems = cut_validation(problems, config.data.validation_size, config.seed)
    tokenizer = _load_or_train_tokenizer(config, folder)
    tokenizer.eos_ids = _choose_ends(tokenizer, config.rollout.end_numbers)
    tokenizer.stop_at(config.rollout.stop_texts)
    data, messages = config.data, read_messages(config, problems)
    form = {"template": data.template, "messages": messages}
    limits = {"max_prompt_tokens": data.max_prompt_tokens, "long_prompts": data.long_prompts}
    tables = {
        # Errors name the file of a table if the config names one, else the table.
        name: build_prompts(part, tokenizer, **form, **limits, source=(own and getattr(data, name)) or name)
        for name, part in problems.items()
    }
    examples = held_out = None
    if own and config.warm_start.steps and not config.base:
        examples = _build_warm_start_examples(config, "train", problems["train"], tokenizer, messages)
        if config.warm_start.validate_every_steps and "validation" in problems:
            held_out = _build_warm_start_examples(config, "validation", problems["validation"], tokenizer, messages)
    notes = [
        note
        for name, table in tables.items()
        for note in check_references(
            config.verify.grader, name, [each.id for each in table.problems], table.prompts, table.answers
        )
    ]
    sets = {name: part for name, part in problems.items() if isinstance(part, ProblemSet)}
    return Dataset(tokenizer, tables, examples, held_out, hygiene, sets, tuple(notes))


def cut_validation(problems: dict[str, ProblemSet], size: int, seed: int) -> dict[str, ProblemSet]:
    """Moves up to `size` problems, at most a twentieth, from "train" to "validation", drawn by seed and text alone.

    All copies of a text move together, and validation has it once.
    """
    train = problems["train"]
    texts = sorted(
        {each.problem for each in train}, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    )
    chosen = set(texts[: min(size, len(texts) // 20)])
    if not chosen:
        return problems
    first = {each.problem: each for each in reversed(train) if each.problem in chosen}
    kept = [each for each in train if each.problem not in chosen]
    cut = ProblemSet(reversed(first.values()), f"{train.source}, cut from training by seed {seed}", train.layout)
    validation = {"train": train.keep(kept, {"cut for validation": len(train) - len(kept)}), "validation": cut}
    return validation | {name: part for name, part in problems.items() if name != "train"}


def read_splits(config: Config, splits: Sequence[str] = arithmetic.SPLITS) -> dict[str, ProblemSet]:
    """Reads or generates the problems of those `splits` that the config has; files of others are not read.

    Raises:
      FileNotFoundError, ValueError: as `read_problems` and `name_set`.
    """
    names = {split: name for split in splits if (name := name_set(config, split))}
    return {split: read_problems(config, name, split) for split, name in names.items()}


def name_set(config: Config, split: str) -> str:
    """Returns the name of a split's set, "" for none; a generated training set gives the other splits too.

    Raises:
      ValueError: if the split would be generated arithmetic, which no setting names, for a pretrained model.
    """
    given, train = getattr(config.data, split), config.data.train or ARITHMETIC
    if not given and not config.data.train and config.model.path:
        raise ValueError(
            f"config.data.{split} is empty, and the model of config.model.path={config.model.path} is pretrained: name "
            f"its problems, e.g. --config.data.{split}=FILE.jsonl, or a set: {', '.join(benchmarks.SOURCES)}, or the "
            f"generated {', '.join(GENERATED)}"
        )
    return given or (train if is_generated(train) else "")


def read_problems(config: Config, name: str, split: str = "test") -> ProblemSet:
    """Reads the problems of a name (`benchmarks.read`), or generates them if it is that of a generated set.

    Args:
      split: Its fields are those of the file; it is the split of a generated set whose name gives none. Training
        problems are read as often as they occur where hygiene does not decide.
    """
    data, setting = config.data, f"config.data.{split}_fields"
    if is_generated(name):
        return ProblemSet(generate(name, data, split), name)
    fields = parse_fields(getattr(data, f"{split}_fields"), setting)
    once = data.hygiene or split != "train"
    return benchmarks.read(name, root=data.folder, fields=fields, setting=setting, once=once)


def read_messages(config: Config, problems: dict[str, list[Problem]]) -> list[tuple[str, str]]:
    """Returns the chat messages (role, text) before every problem: the system message, and the shots in pairs.

    Raises:
      FileNotFoundError, ValueError: as `read_problems`, or if a shot is also one of the `problems`.
    """
    data = config.data
    messages = [("system", data.system)] if data.system else []
    shots = read_problems(config, data.shots) if data.shots else []
    shown = {shot.problem: shot.id for shot in shots}
    for name, part in problems.items():
        if both := [problem.id for problem in part if problem.problem in shown]:
            raise ValueError(
                f"config.data.shots={data.shots}: {len(both)} of its problems are {name} problems too (the first: "
                f"{both[0]!r}), whose answers every prompt would show; take them out of one of the files"
            )
    for shot in shots:
        messages += [("user", shot.problem), ("assistant", end_with_answer(shot, config.verify.grader).strip())]
    return messages


def _clean_training_problems(config: Config, problems: dict[str, list[Problem]]) -> HygieneReport:
    """Applies hygiene to the training problems against the other splits and the sets of `config.data.exclude`."""
    data = config.data
    evaluations = {name_set(config, split): problems[split] for split in problems if split != "train"}
    for name in filter(None, map(str.strip, data.exclude.split(","))):
        if name not in evaluations:
            evaluations[name] = read_problems(config, name)
    report = clean_once(problems["train"], evaluations, cache_folder() / "hygiene")
    if not report.problems:
        raise ValueError(
            f"config.data.train={data.train}: no problem is left\n{report.table()}\n"
            "give other problems, or config.data.hygiene=false"
        )
    return report


def _load_or_train_tokenizer(config: Config, folder: Path) -> Tokenizer:
    """Loads the config's tokenizer, or trains one on the generated problems and keeps it in `folder`.

    Raises:
      ValueError: if the config names no tokenizer, and its problems are not generated or need a chat template.
    """
    if config.data.tokenizer:
        return load_tokenizer(config.data.tokenizer)
    name = name_set(config, "train")
    if not is_generated(name):
        raise ValueError(
            "config.data.train names a problem file, so config.data.tokenizer must name a tokenizer: a Hugging Face "
            "folder (tokenizer.json) or a SentencePiece file (.model); a model folder, config.model.path=FOLDER, has "
            "its own"
        )
    if config.data.template == "chat":
        raise ValueError(
            "config.data.template='chat' is the tokenizer's own: give config.model.path=FOLDER, a pretrained model, or "
            "config.data.tokenizer=FOLDER; the tokenizer of generated problems has none"
        )
    # Every process of a run trains it and writes the same bytes.
    texts = [problem.problem + problem.solution for problem in read_splits(config, ("train",))["train"]]
    return load_tokenizer(train_sentencepiece(texts, folder / "tokenizer" / f"{name.partition(':')[0]}.model"))


def _choose_ends(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[int, ...]:
    """Returns the ids that end an answer: the given ones, or without any those that the tokenizer has found."""
    for number in ids:
        if not 0 <= number < tokenizer.vocab_size:
            raise ValueError(
                f"config.rollout.end_ids: the tokenizer has ids from 0 to {tokenizer.vocab_size - 1}, not {number}; by "
                f"default {', '.join(map(str, tokenizer.eos_ids))} end an answer"
            )
    return tuple(dict.fromkeys(ids)) or tokenizer.eos_ids


def _build_warm_start_examples(
    config: Config, split: str, problems: list[Problem], tokenizer: Tokenizer, messages: Sequence[tuple[str, str]]
) -> ExampleTable | None:
    """Returns the worked solutions of the training problems, or of at most `validation_examples` validation problems.

    Returns None if no validation problem has a solution.

    Raises:
      ValueError: if no training problem has one, or none fits.
    """
    warm, most = config.warm_start, config.warm_start.validation_examples if split == "validation" else None
    if name_set(config, split).partition(":")[0] == ARITHMETIC:
        size = most or warm.arithmetic_examples
        drawn = arithmetic.draw_examples(problems, size=size, incorrect_share=warm.incorrect_share, seed=config.seed)
        requests, responses = [(messages, text) for text, _ in drawn], [response for _, response in drawn]
    else:
        solved = [problem for problem in problems if problem.solution][:most]
        requests = [((*messages, *each.messages), each.problem) for each in solved]
        responses = [end_with_answer(each, config.verify.grader) for each in solved]
    if not responses and split == "validation":
        return None
    if not responses:
        raise ValueError(
            f"{config.data.train}: no problem has a worked solution, so the warm start has no examples; name the field "
            "of the solutions by --config.data.train_fields=PROBLEM,ANSWER,SOLUTION, or set config.warm_start.steps=0"
        )
    prompts = render_prompts(requests, tokenizer, template=config.data.template)
    return build_examples(
        list(zip(prompts, responses, strict=True)),
        tokenizer,
        max_prompt_tokens=config.data.max_prompt_tokens,
        max_answer_tokens=config.rollout.max_answer_tokens,
        source=f"the {split} problems",
    )


def end_with_answer(problem: Problem, grader: str) -> str:
    r"""Returns the worked solution, followed by `\boxed{answer}` where the grader needs a box and it has none.

    The grader "gsm8k" needs none where the last number of the solution is the answer.
    """
    ends = grader == "gsm8k" and gsm8k(problem.solution, problem.answer)[0] == "correct"
    if ends or "\\boxed{" in problem.solution:
        return problem.solution
    return f"{problem.solution}\n\\boxed{{{problem.answer}}}"


def unreadable_answers(grader: str, tables: dict[str, PromptTable], most: int = 3) -> list[str]:
    """Returns one line for each table with reference answers that the grader "math" can't read.

    The line names the first `most` of them. Other graders need no such check, so they get no lines.
    """
    lines = []
    for name, table in tables.items() if grader == "math" else ():
        unreadable = [
            (problem.id, answer, reason)
            for problem, answer in zip(table.problems, table.answers, strict=True)
            if (reason := check_reference(answer))
        ]
        if unreadable:
            first = "; ".join(f"{where}, {answer[:40]!r}: {reason}" for where, answer, reason in unreadable[:most])
            lines.append(
                f"problems  {name}: of {len(table.answers)} reference answers {len(unreadable)} can't be read by the "
                f"grader 'math', which then accepts only the same text as correct "
                f"({first}{'; …' * (len(unreadable) > most)})"
            )
    return lines
