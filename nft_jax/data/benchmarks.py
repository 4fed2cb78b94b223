r"""Problems by name: the usual training sets and benchmarks, files, folders, and datasets of the Hugging Face hub.

| name               | meaning                                                                                         |
|--------------------|-------------------------------------------------------------------------------------------------|
| `some/file.jsonl`  | a JSONL, JSON, CSV, TSV or Parquet file, or one of these with .gz; any existing path works      |
| `folder:train`     | a split of a folder of such files, laid out as on the hub; `folder` alone if it has only one    |
| `math500`          | with a root: its file `math500.jsonl` (or .parquet, …); without: one of `SOURCES`, from the hub |
| `owner/name:train` | a dataset of the hub, or `owner/name/subset:train`; the split may be omitted if it has only one |

A new benchmark is one entry in `SOURCES`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from nft_jax.data.fields import Fields
from nft_jax.data.files import FIELDS_SETTING, ProblemSet, RecordReader
from nft_jax.data.prompts import unwrap
from nft_jax.data.records import SUFFIXES, has_known_suffix
from nft_jax.names import suggestion

_SUFFIXES = (*SUFFIXES, *(f"{suffix}.gz" for suffix in SUFFIXES))
_HUB = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:/([\w.-]+))?(?::([\w.-]+))?")
# Files that accompany the data of a folder.
_NO_DATA = re.compile(r"dataset_infos?\.json|state\.json|.*config.*\.json|tokenizer.*\.json")


class Source(NamedTuple):
    """A set of problems on the Hugging Face hub: OWNER/NAME, the split and, if there are several, the subset."""

    dataset: str
    split: str
    subset: str | None = None

    @property
    def path(self) -> str:
        """The name by which any dataset of the hub is read: `owner/name/subset:train`."""
        return f"{self.dataset}{f'/{self.subset}' if self.subset else ''}:{self.split}"


SOURCES = {
    "dapo_math_17k": Source("BytedTsinghua-SIA/DAPO-Math-17k", "train"),
    "math_train": Source("DigitalLearningGmbH/MATH-lighteval", "train"),
    "gsm8k_train": Source("openai/gsm8k", "train", "main"),
    "aime24": Source("HuggingFaceH4/aime_2024", "train"),
    "aime25": Source("math-ai/aime25", "test"),
    "amc23": Source("math-ai/amc23", "test"),
    "math500": Source("HuggingFaceH4/MATH-500", "test"),
    "olympiadbench": Source("Hothan/OlympiadBench", "train", "OE_TO_maths_en_COMP"),
    "minerva_math": Source("math-ai/minervamath", "test"),
    "gsm8k_test": Source("openai/gsm8k", "test", "main"),
}


def read(
    name: str, *, root: str = "", fields: Fields | None = None, setting: str = FIELDS_SETTING, once: bool = True
) -> ProblemSet:
    """Reads the problems of a name, which may have any form of the table above; an existing path takes precedence.

    The text of the prompt template `dapo` around a problem is removed.

    Args:
      root: A folder with files of named sets; a name of `SOURCES` is then never looked up on the hub.
      fields: Where the problem is in a record; None: as in the layout that is recognized. The sets of `SOURCES` are
        always recognized.
      setting: The setting that names the fields, for errors.
      once: Whether rows that repeat another are left out.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the name has no known form, a split must be chosen, a dataset cannot be loaded, or a problem is
        invalid (see `RecordReader`).
    """
    path = Path(name).expanduser()
    known = name in SOURCES and not path.exists()
    reader = RecordReader(name, None if known else fields, setting, once)
    files = _find_files(name, path, root)
    for file in files:
        reader.read_file(file)
    if not files:
        for number, row in enumerate(_load_hub_rows(name, root), start=1):
            reader.add(row, f"{name}: row {number}", f"{name}:{number}")
    found = reader.finish()
    return found.keep([each._replace(problem=unwrap(each.problem, "dapo")) for each in found], {})


def _find_files(name: str, path: Path, root: str) -> list[Path]:
    """Returns the files of a name; none if it is to be looked up on the hub."""
    folder, _, split = str(path).rpartition(":")
    if path.is_dir():
        return _find_in_folder(path, "")
    if folder and Path(folder).is_dir():
        return _find_in_folder(Path(folder), split)
    if path.is_file() or has_known_suffix(name):
        return [path]
    candidates = [Path(root).expanduser() / f"{name}{suffix}" for suffix in _SUFFIXES] if root else []
    return [file for file in candidates if file.is_file()][:1]


def _find_in_folder(folder: Path, split: str) -> list[Path]:
    """Returns the files of one split in the order of their names; `split` may be "" if the folder has only one."""
    splits = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if has_known_suffix(path.name) and path.is_file() and not _NO_DATA.fullmatch(path.name):
            splits[_split_name(path)].append(path)
    if not splits:
        arrow = " (its .arrow files were written by datasets' save_to_disk: in Python, "
        arrow += "datasets.load_from_disk(FOLDER).to_parquet(FILE))"
        raise FileNotFoundError(
            f"{folder} is a folder without any {', '.join(SUFFIXES)} file; give one with problems"
            f"{arrow if any(folder.rglob('*.arrow')) else ''}"
        )
    split = split or (next(iter(splits)) if len(splits) == 1 else "")
    if split not in splits:
        problem = f"has no split {split!r}" if split else "has several splits"
        choice = ", ".join(f"{folder}:{name}" for name in sorted(splits))
        raise ValueError(f"{folder} {problem}; use one of {choice}")
    parents = sorted({str(path.parent) for path in splits[split]})
    if len(parents) > 1:
        choice = ", ".join(f"{parent}:{split}" for parent in parents)
        raise ValueError(f"{folder} has split {split!r} in several folders; use one of {choice}")
    return splits[split]


def _split_name(path: Path) -> str:
    """Returns `train` for `train.jsonl.gz`, `train-00000-of-00002.parquet` and `train/0000.parquet`."""
    stem = re.sub(r"-\d+-of-\d+$", "", Path(path.name.removesuffix(".gz")).stem)
    return path.parent.name if stem.isdecimal() else stem


def _load_hub_rows(name: str, root: str) -> Iterable[Mapping]:
    """Loads the rows of a dataset of the hub.

    Raises:
      FileNotFoundError, ValueError: if the name is not known, the package `datasets` is missing, the dataset cannot be
        loaded, or a subset or split must be chosen.
    """
    place = _HUB.fullmatch(SOURCES[name].path if name in SOURCES else name)
    if place is None or (name in SOURCES and root):
        raise _unknown_name_error(name, root)
    dataset, subset, split = place.groups()
    try:
        import datasets  # an optional extra, and slow to import
    except ImportError:
        folder = f"{Path(dataset).name}{f'/{subset}' if subset else ''}"
        raise ValueError(
            f"{name}: no such file or folder. The dataset {dataset} of the Hugging Face hub is read by the package "
            f"`datasets`: pip install datasets; or download it (hf download {dataset} --repo-type=dataset --local-dir="
            f"{Path(dataset).name}) and name a folder of it in place of {name}: {folder}{f':{split}' if split else ''}"
        ) from None
    try:
        rows = datasets.load_dataset(dataset, subset, split=split)
    except Exception as error:  # from network errors to errors in the dataset's own layout
        raise _hub_error(name, datasets, dataset, subset, split, error) from error
    if split is None:
        if len(rows) != 1:
            choice = ", ".join(f"{name}:{each}" for each in rows)
            raise ValueError(f"{name} has several splits; use one of {choice}")
        rows = next(iter(rows.values()))
    return rows


def _hub_error(
    name: str, datasets: object, dataset: str, subset: str | None, split: str | None, error: Exception
) -> ValueError:
    """Returns the error for a dataset that can't be loaded; it lists the subsets if one must be chosen."""
    try:
        subsets = datasets.get_dataset_config_names(dataset)
    except Exception:  # the same network error, most likely
        subsets = []
    if len(subsets) > 1 and subset not in subsets:
        choice = ", ".join(f"{dataset}/{each}{f':{split}' if split else ''}" for each in subsets)
        return ValueError(f"{name} has several subsets; use one of {choice}")
    return ValueError(f"{name}: {dataset} can't be loaded from the Hugging Face hub: {error}")


def _unknown_name_error(name: str, root: str) -> Exception:
    if name in SOURCES:
        files = ", ".join(sorted(path.name for path in Path(root).glob("*") if has_known_suffix(path))) or "none"
        return FileNotFoundError(
            f"config.data.folder={root} has no file {name}.jsonl, .parquet, …; its files are: {files}; without "
            "config.data.folder, it is read from the Hugging Face hub"
        )
    near = suggestion(name.lower().replace("-", "_"), SOURCES)
    return ValueError(
        f"{name!r} is neither an existing file or folder nor a known set of problems; use one of {', '.join(SOURCES)}, "
        f"a generated set of nft_jax/data/generated.py, or OWNER/NAME:SPLIT of the Hugging Face hub{near}"
    )
