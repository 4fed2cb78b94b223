r"""Problems by name: the usual training sets and benchmarks, files and folders, and datasets of the Hugging Face hub.

| a name like          | is                                                                                          |
|----------------------|---------------------------------------------------------------------------------------------|
| `some/file.jsonl`    | a JSONL or Parquet file, and so is any other path that is there                             |
| `some/folder:train`  | that split of a folder of such files, as the hub lays them out; `some/folder` if it has one |
| `math500`            | with a root `math500.jsonl` or `.parquet` in it, else one of `SOURCES`, from the hub        |
| `owner/name:train`   | a dataset of the hub, or `owner/name/subset:train`; without a split if it has but one       |
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from nft_jax.data.files import Problem, load_problems, problem_from_record
from nft_jax.data.prompts import unwrap
from nft_jax.names import suggestion
from nft_jax.verify.extract import last_boxed

_SUFFIXES = (".jsonl", ".parquet")
_HUB = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:/([\w.-]+))?(?::([\w.-]+))?")


class Source(NamedTuple):
    r"""Where a set of problems is on the Hugging Face hub, and what it is like there.

    `dataset`, `subset`, `split`    its place
    `problem`, `answer`, `solution` its fields
    `template`  the prompt template that its problems are wrapped in, which is taken off them
    `boxed`     the answer is the last `\boxed{}` of the answer's field; what has no such, or an empty one, is left out
    `repeated`  it has every row many times: each is taken once
    """

    dataset: str
    split: str
    subset: str | None = None
    problem: str = "problem"
    answer: str = "answer"
    solution: str = "solution"
    template: str = ""
    boxed: bool = False
    repeated: bool = False


SOURCES = {
    "dapo_math_17k": Source(
        "BytedTsinghua-SIA/DAPO-Math-17k",
        "train",
        problem="prompt.0.content",
        answer="reward_model.ground_truth",
        template="dapo",
        repeated=True,
    ),
    "math_train": Source("DigitalLearningGmbH/MATH-lighteval", "train", answer="solution", boxed=True),
    "gsm8k_train": Source("openai/gsm8k", "train", "main", problem="question"),
    "aime24": Source("HuggingFaceH4/aime_2024", "train"),
    "aime25": Source("math-ai/aime25", "test"),
    "amc23": Source("math-ai/amc23", "test", problem="question"),
    "math500": Source("HuggingFaceH4/MATH-500", "test"),
    "olympiadbench": Source(
        "Hothan/OlympiadBench",
        "train",
        "OE_TO_maths_en_COMP",
        problem="question",
        answer="final_answer.0",
        solution="solution.0",
    ),
    "minerva_math": Source("math-ai/minervamath", "test", problem="question"),
    "gsm8k_test": Source("openai/gsm8k", "test", "main", problem="question"),
}


def read(
    name: str,
    *,
    root: str = "",
    problem_field: str = "problem",
    answer_field: str = "answer",
    solution_field: str = "solution",
) -> list[Problem]:
    """The problems of a name, which may be of any kind of the table above; a path that is there goes first.

    The fields are those of files and of datasets that `SOURCES` does not know; `SOURCES` has its own. With a `root`,
    the hub is never asked for one of `SOURCES`: its file in there has the fields `problem`, `answer` and `solution`.

    Raises FileNotFoundError where a file is missing, and ValueError for a name that is of no kind, a split that must be
    chosen, a dataset that can't be had, and anything wrong with the problems (see `load_problems`).
    """
    fields = {"problem_field": problem_field, "answer_field": answer_field, "solution_field": solution_field}
    folder, _, split = name.rpartition(":")
    if Path(name).is_dir():
        return _of_folder(Path(name), "", fields)
    if folder and Path(folder).is_dir():
        return _of_folder(Path(folder), split, fields)
    if Path(name).is_file() or name.endswith(_SUFFIXES):
        return load_problems(name, **fields)
    kept = [path for path in (Path(root) / f"{name}{suffix}" for suffix in _SUFFIXES) if root and path.is_file()]
    if kept:
        return load_problems(kept[0], **({} if name in SOURCES else fields))
    if name in SOURCES and not root:
        return _of_source(name, SOURCES[name])
    if name not in SOURCES and (place := _HUB.fullmatch(name)):
        rows = _hub_rows(name, *place.groups())
        return [
            problem_from_record(row, f"{name}: row {n}", f"{name}:{n}", **fields) for n, row in enumerate(rows, start=1)
        ]
    raise _unknown(name, root)


def _of_folder(folder: Path, split: str, fields: dict[str, str]) -> list[Problem]:
    """The problems of the files of one split, in the order of their names."""
    splits = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix in _SUFFIXES and path.is_file():
            splits[_split(path)].append(path)
    if not splits:
        raise FileNotFoundError(f"{folder} is a folder without any .jsonl or .parquet file; give one of problems")
    split = split or (next(iter(splits)) if len(splits) == 1 else "")
    if split not in splits:
        wanted = f"has no split {split!r}" if split else "has several splits"
        choice = ", ".join(f"{folder}:{name}" for name in sorted(splits))
        raise ValueError(f"{folder} {wanted}; use one of {choice}")
    parents = sorted({str(path.parent) for path in splits[split]})
    if len(parents) > 1:
        raise ValueError(f"{folder} has split {split!r} in several folders, {', '.join(parents)}; give one of them")
    return [problem for path in splits[split] for problem in load_problems(path, **fields)]


def _split(path: Path) -> str:
    """`train` for `train.jsonl`, `train-00000-of-00002.parquet` and `train/0000.parquet`."""
    stem = re.sub(r"-\d+-of-\d+$", "", path.stem)
    return path.parent.name if stem.isdecimal() else stem


def _of_source(name: str, source: Source) -> list[Problem]:
    fields = {"problem_field": source.problem, "answer_field": source.answer, "solution_field": source.solution}
    problems: dict = {}
    for number, row in enumerate(_hub_rows(name, source.dataset, source.subset, source.split), start=1):
        problem = problem_from_record(row, f"{name}: row {number}", f"{name}:{number}", **fields)
        if source.template:
            problem = problem._replace(problem=unwrap(problem.problem, source.template))
        if source.boxed:
            problem = problem._replace(answer=last_boxed(problem.answer) or "")
        if problem.answer.strip():
            problems.setdefault(problem[:2] if source.repeated else number, problem)
    return list(problems.values())


def _hub_rows(name: str, dataset: str, subset: str | None, split: str | None) -> Iterator[Mapping]:
    try:
        import datasets  # an optional extra, and slow to import
    except ImportError:
        raise ValueError(
            f"{name}: no such file or folder, and for the dataset {dataset} of the Hugging Face hub the package "
            "`datasets` is needed: pip install nft_jax[data]; or give a file, or config.data.folder=FOLDER with "
            f"{Path(name).name.partition(':')[0]}.jsonl in it"
        ) from None
    try:
        found = datasets.load_dataset(dataset, subset, split=split)
    except Exception as error:  # from the network to the dataset's own layout
        raise ValueError(f"{name}: {dataset} can't be had from the Hugging Face hub: {error}") from error
    if split is None:
        if len(found) != 1:
            choice = ", ".join(f"{name}:{each}" for each in found)
            raise ValueError(f"{name} has several splits; use one of {choice}")
        found = next(iter(found.values()))
    return iter(found)


def _unknown(name: str, root: str) -> Exception:
    if name in SOURCES:
        there = ", ".join(sorted(path.name for path in Path(root).glob("*") if path.suffix in _SUFFIXES)) or "none"
        return FileNotFoundError(
            f"config.data.folder={root} has no file {name}.jsonl or {name}.parquet; its files are: {there}; without "
            "config.data.folder, it is read from the Hugging Face hub"
        )
    return ValueError(
        f"{name!r} is no file or folder that is there, and no known problems; known are {', '.join(SOURCES)}, "
        f"and OWNER/NAME:SPLIT of the Hugging Face hub{suggestion(name.lower().replace('-', '_'), SOURCES)}"
    )
