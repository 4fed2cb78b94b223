"""Problem files of a run: training problems, some of which overlap with the evaluation sets beside them."""

import json
from pathlib import Path

from nft_jax.data.files import Problem
from nft_jax.data.sentencepiece_training import train_sentencepiece


def write_problems(path: Path, *texts: str) -> str:
    """Writes one problem a text, all with the answer 1; returns the path as text."""
    problems = [Problem(text, "1", id=f"{path.stem}{i}") for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(problem._asdict()) + "\n" for problem in problems))
    return str(path)


def write_split_files(folder: Path) -> dict[str, str]:
    """Writes a problem file for each split and a tokenizer; returns their settings, and one file besides."""
    tokenizer = train_sentencepiece(["0123456789+-= "], folder / "t.model", symbols=())
    return {
        "data__train": write_problems(folder / "train.jsonl", "1+1=", "1 + 1 =", "2+2=", "3+3=", "4+4=", "5+5="),
        "data__validation": write_problems(folder / "validation.jsonl", "2 + 2=", "2+2="),
        "data__test": write_problems(folder / "test.jsonl", "3+3="),
        "data__exclude": f" {write_problems(folder / 'more.jsonl', '4 +4=')}, other,",
        "data__folder": str(folder),
        "data__tokenizer": str(tokenizer),
        "data__other": write_problems(folder / "other.jsonl", "9+9="),
    }
