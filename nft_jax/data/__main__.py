"""Cleans training problems and reports what was left out and why; needs neither a device nor jax.

python -m nft_jax.data --problems=dapo_math_17k --exclude=math500,aime24 --folder=FOLDER --output=clean.jsonl

Problems are named by files, folders, benchmarks or datasets of the Hugging Face hub (see nft_jax/data/benchmarks.py).
The rules are in nft_jax/data/hygiene.py; training applies the same ones with config.data.hygiene=true.
"""

import argparse
import os
import signal
import sys

from nft_jax import command_words
from nft_jax.data import benchmarks
from nft_jax.data.fields import parse_fields
from nft_jax.data.files import Problem
from nft_jax.data.hygiene import clean
from nft_jax.files import atomically, json_text, name_output
from nft_jax.printing import show_control_characters


def main(words: list[str] | None = None) -> None:
    """Cleans the problems that the flags name; on a bad flag or problem, exits with code 2 and a message."""
    show_control_characters()
    try:
        _run(_make_parser().parse_args(command_words.prepare(sys.argv[1:] if words is None else words)))
    except (ValueError, OSError) as error:
        # Errors name settings of a config, which are flags here.
        _make_parser().exit(2, f"error: {str(error).replace('config.data.', '--')}\n")
    except KeyboardInterrupt:
        _make_parser().exit(128 + signal.SIGINT, "error: interrupted by Ctrl-C\n")


def _run(flags: argparse.Namespace) -> None:
    def read(name, setting):
        fields = parse_fields(getattr(flags, setting), f"config.data.{setting}")
        return benchmarks.read(name, root=flags.folder, fields=fields, setting=f"config.data.{setting}")

    if not flags.problems.strip():
        raise ValueError("--problems= is empty: name a file, a folder or a set of problems")
    written = {flag: name_output(path, flag) for flag in ("output", "report") if (path := getattr(flags, flag))}
    for flag, path in written.items():
        if os.path.lexists(path) or list(written.values()).count(path) > 1:
            raise ValueError(f"--{flag}={path} exists already, or is given twice; name a new file, or remove it before")
    names = [name.strip() for name in flags.exclude.split(",") if name.strip()]
    problems = read(flags.problems, "fields")
    print(problems.describe())
    report = clean(problems, {name: read(name, "exclude_fields") for name in names})
    print(report.table())
    texts = {
        "output": lambda: "".join(json_text(_make_record(problem)) + "\n" for problem in report.problems),
        "report": lambda: json_text(report.to_json(), 2) + "\n",
    }
    for flag, path in written.items():
        with atomically(path) as temporary:
            temporary.write_text(texts[flag](), encoding="utf-8")
        print(f"{flag}: {path}")


def _make_record(problem: Problem) -> dict:
    """Returns the record from which the same problem is read; a problem with messages before it is a chat."""
    record = problem._asdict()
    if messages := record.pop("messages"):
        chat = [*messages, ("user", problem.problem)]
        record["problem"] = [{"role": role, "content": content} for role, content in chat]
    return record


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m nft_jax.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--problems", required=True, metavar="NAME", help="The training problems.")
    parser.add_argument("--exclude", default="", metavar="NAMES", help="Evaluation sets, separated by commas.")
    parser.add_argument("--folder", default="", metavar="FOLDER", help="The folder of files such as math500.jsonl.")
    parser.add_argument("--output", metavar="FILE", help="New JSONL file for the remaining problems.")
    parser.add_argument("--report", metavar="FILE", help="New JSON file for each removal and its match.")
    for flag, files in (("fields", "the problems"), ("exclude_fields", "the evaluation sets")):
        parser.add_argument(
            f"--{flag}",
            default="",
            metavar="PROBLEM,ANSWER[,SOLUTION]",
            help=f"Their fields in the files of {files}; by default, the layout is recognized.",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
