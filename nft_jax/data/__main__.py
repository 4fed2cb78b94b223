"""Cleans training problems and says what was left out and why; neither a device nor jax is needed.

python -m nft_jax.data --problems=dapo_math_17k --exclude=math500,aime24 --folder=FOLDER --output=clean.jsonl

Problems are named as everywhere: files, folders, benchmarks, datasets of the Hugging Face hub
(nft_jax/data/benchmarks.py says how). What is left out and why: nft_jax/data/hygiene.py. It is what training does with
config.data.hygiene=true.
"""

import argparse
import json
import sys
from pathlib import Path

from nft_jax.data import benchmarks
from nft_jax.data.hygiene import clean


def main(words: list[str] | None = None) -> None:
    """Does what the flags say; a wrong one, or anything wrong with the problems, ends it with code 2 and a message."""
    flags = _parser().parse_args(words)
    try:
        _run(flags)
    except (ValueError, OSError) as error:
        # The settings of a config are flags here.
        _parser().exit(2, f"error: {str(error).replace('config.data.', '--')}\n")


def _run(flags: argparse.Namespace) -> None:
    def read(name):
        fields = {field: getattr(flags, field) for field in ("problem_field", "answer_field", "solution_field")}
        return benchmarks.read(name, root=flags.folder, **fields)

    names = [name.strip() for name in flags.exclude.split(",") if name.strip()]
    cleaned = clean(read(flags.problems), {name: read(name) for name in names})
    print(cleaned.table())
    if flags.output:
        lines = (json.dumps(problem._asdict(), ensure_ascii=False) + "\n" for problem in cleaned.problems)
        Path(flags.output).write_text("".join(lines), encoding="utf-8")
    if flags.report:
        Path(flags.report).write_text(json.dumps(cleaned.as_json(), indent=2, ensure_ascii=False) + "\n", "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m nft_jax.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--problems", required=True, metavar="NAME", help="The training problems.")
    parser.add_argument("--exclude", default="", metavar="NAMES", help="Evaluation sets, comma between them.")
    parser.add_argument("--folder", default="", metavar="FOLDER", help="Where files like math500.jsonl are.")
    parser.add_argument("--output", metavar="FILE", help="JSONL file for the problems that are left.")
    parser.add_argument("--report", metavar="FILE", help="JSON file for each problem left out, and which it is like.")
    for field in ("problem", "answer", "solution"):
        parser.add_argument(f"--{field}_field", default=field, metavar="FIELD", help=f"Where files have the {field}.")
    return parser


if __name__ == "__main__":
    sys.exit(main())
