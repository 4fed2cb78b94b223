r"""Problems by name: the usual training sets and benchmarks, files, folders, and datasets of the Hugging Face hub.

| name               | meaning                                                                                         |
|--------------------|-------------------------------------------------------------------------------------------------|
| `some/file.jsonl`  | a JSONL or Parquet file; any other existing path works too                                      |
| `folder:train`     | a split of a folder of such files, laid out as on the hub; `folder` alone if it has only one    |
| `math500`          | with a root: its file `math500.jsonl` or `.parquet`; without: one of `SOURCES`, from the hub    |
| `owner/name:train` | a dataset of the hub, or `owner/name/subset:train`; the split may be omitted if it has only one |

A new benchmark is one entry in `SOURCES`.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from nft_jax.data.files import DEFAULT_FIELDS, Fields, Problem, load_problems, problem_from_record
from nft_jax.data.prompts import unwrap
from nft_jax.names import suggestion
from nft_jax.verify.extract import last_boxed

_SUFFIXES = (".jsonl", ".parquet")
_HUB = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:/([\w.-]+))?(?::([\w.-]+))?")


class Source(NamedTuple):
    r"""A set of problems on the Hugging Face hub.

    Attributes:
      dataset: OWNER/NAME.
      template: The prompt template around each problem, which is removed; "" for none.
      answer_is_boxed: Whether the answer is the last `\boxed{}` of the answer's field. Rows without one, or with an
        empty one, are left out.
      has_repeated_rows: Whether rows occur many times, so that equal ones are read once.
    """

    dataset: str
    split: str
    subset: str | None = None
    fields: Fields = DEFAULT_FIELDS
    template: str = ""
    answer_is_boxed: bool = False
    has_repeated_rows: bool = False


SOURCES = {
    "dapo_math_17k": Source(
        "BytedTsinghua-SIA/DAPO-Math-17k",
        "train",
        fields=Fields("prompt.0.content", "reward_model.ground_truth"),
        template="dapo",
        has_repeated_rows=True,
    ),
    "math_train": Source(
        "DigitalLearningGmbH/MATH-lighteval", "train", fields=Fields(answer="solution"), answer_is_boxed=True
    ),
    "gsm8k_train": Source("openai/gsm8k", "train", "main", fields=Fields("question")),
    "aime24": Source("HuggingFaceH4/aime_2024", "train"),
    "aime25": Source("math-ai/aime25", "test"),
    "amc23": Source("math-ai/amc23", "test", fields=Fields("question")),
    "math500": Source("HuggingFaceH4/MATH-500", "test"),
    "olympiadbench": Source(
        "Hothan/OlympiadBench",
        "train",
        "OE_TO_maths_en_COMP",
        fields=Fields("question", "final_answer.0", "solution.0"),
    ),
    "minerva_math": Source("math-ai/minervamath", "test", fields=Fields("question")),
    "gsm8k_test": Source("openai/gsm8k", "test", "main", fields=Fields("question")),
}


def read(name: str, *, root: str = "", fields: Fields = DEFAULT_FIELDS) -> list[Problem]:
    """Reads the problems of a name, which may have any form of the table above; an existing path takes precedence.

    `fields` applies to files and to datasets outside `SOURCES`, whose entries have their own fields. With a `root`, a
    name of `SOURCES` is never looked up on the hub: the root must have its file, with the default fields.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the name has no known form, a split must be chosen, a dataset cannot be loaded, or a problem is
        invalid (see `load_problems`).
    """
    folder, _, split = name.rpartition(":")
    if Path(name).is_dir():
        return _read_folder(Path(name), "", fields)
    if folder and Path(folder).is_dir():
        return _read_folder(Path(folder), split, fields)
    if Path(name).is_file() or name.endswith(_SUFFIXES):
        return load_problems(name, fields)
    files = [path for path in (Path(root) / f"{name}{suffix}" for suffix in _SUFFIXES) if root and path.is_file()]
    if files:
        return load_problems(files[0], DEFAULT_FIELDS if name in SOURCES else fields)
    if name in SOURCES and not root:
        return _read_source(name, SOURCES[name])
    if name not in SOURCES and (place := _HUB.fullmatch(name)):
        rows = _load_hub_rows(name, *place.groups())
        return [problem_from_record(row, f"{name}: row {n}", f"{name}:{n}", fields) for n, row in enumerate(rows, 1)]
    raise _unknown_name_error(name, root)


def _read_folder(folder: Path, split: str, fields: Fields) -> list[Problem]:
    """Reads the files of one split in the order of their names; `split` may be "" if the folder has only one."""
    splits = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix in _SUFFIXES and path.is_file():
            splits[_split_name(path)].append(path)
    if not splits:
        raise FileNotFoundError(f"{folder} is a folder without any .jsonl or .parquet file; give one with problems")
    split = split or (next(iter(splits)) if len(splits) == 1 else "")
    if split not in splits:
        problem = f"has no split {split!r}" if split else "has several splits"
        choice = ", ".join(f"{folder}:{name}" for name in sorted(splits))
        raise ValueError(f"{folder} {problem}; use one of {choice}")
    parents = sorted({str(path.parent) for path in splits[split]})
    if len(parents) > 1:
        raise ValueError(f"{folder} has split {split!r} in several folders, {', '.join(parents)}; give one of them")
    return [problem for path in splits[split] for problem in load_problems(path, fields)]


def _split_name(path: Path) -> str:
    """Returns `train` for `train.jsonl`, `train-00000-of-00002.parquet` and `train/0000.parquet`."""
    stem = re.sub(r"-\d+-of-\d+$", "", path.stem)
    return path.parent.name if stem.isdecimal() else stem


def _read_source(name: str, source: Source) -> list[Problem]:
    """Reads one of `SOURCES` from the hub."""
    problems: dict = {}
    for number, row in enumerate(_load_hub_rows(name, source.dataset, source.subset, source.split), start=1):
        problem = problem_from_record(row, f"{name}: row {number}", f"{name}:{number}", source.fields)
        if source.template:
            problem = problem._replace(problem=unwrap(problem.problem, source.template))
        if source.answer_is_boxed:
            problem = problem._replace(answer=last_boxed(problem.answer) or "")
        if problem.answer.strip():
            problems.setdefault(problem[:2] if source.has_repeated_rows else number, problem)
    return list(problems.values())


def _load_hub_rows(name: str, dataset: str, subset: str | None, split: str | None) -> Iterator[Mapping]:
    """Loads the rows of a dataset of the hub; `split` may be None if the dataset has only one.

    Raises:
      ValueError: if the package `datasets` is missing, the dataset cannot be loaded, or a split must be chosen.
    """
    try:
        import datasets  # an optional extra, and slow to import
    except ImportError:
        raise ValueError(
            f"{name}: no such file or folder. Reading the dataset {dataset} of the Hugging Face hub needs the package "
            "`datasets`: pip install nft_jax[data]; or give a file, or config.data.folder=FOLDER with "
            f"{Path(name).name.partition(':')[0]}.jsonl in it"
        ) from None
    try:
        rows = datasets.load_dataset(dataset, subset, split=split)
    except Exception as error:  # from network errors to errors in the dataset's own layout
        raise ValueError(f"{name}: {dataset} can't be loaded from the Hugging Face hub: {error}") from error
    if split is None:
        if len(rows) != 1:
            choice = ", ".join(f"{name}:{each}" for each in rows)
            raise ValueError(f"{name} has several splits; use one of {choice}")
        rows = next(iter(rows.values()))
    return iter(rows)


def _unknown_name_error(name: str, root: str) -> Exception:
    if name in SOURCES:
        files = ", ".join(sorted(path.name for path in Path(root).glob("*") if path.suffix in _SUFFIXES)) or "none"
        return FileNotFoundError(
            f"config.data.folder={root} has no file {name}.jsonl or {name}.parquet; its files are: {files}; without "
            "config.data.folder, it is read from the Hugging Face hub"
        )
    near = suggestion(name.lower().replace("-", "_"), SOURCES)
    return ValueError(
        f"{name!r} is neither an existing file or folder nor a known set of problems; use one of {', '.join(SOURCES)}, "
        f"a generated set of nft_jax/data/generated.py, or OWNER/NAME:SPLIT of the Hugging Face hub{near}"
    )
