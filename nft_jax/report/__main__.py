"""Draws the curves of a run again (curves.png), and makes one page of it (report.html).

    python -m nft_jax.report --config=tiny --workdir=runs/tiny
    python -m nft_jax.report --workdir=runs/nft --against=runs/rft,runs/grpo

The page needs no server and no network. It shows scores, curves, settings, the answers that the run trained on, token
by token where they were saved so (`config.record.token_prompts`), which decode slot gave which answer when, and answers
to held-out problems. --against puts the last greedy answers of other runs to the same problems beside this run's: which
are fixed, broken and unchanged, over all and by kind, with paired intervals; it prints these tables too.
"""

from pathlib import Path

from absl import flags

from nft_jax import cli
from nft_jax.config import Config
from nft_jax.report import against, curves, page
from nft_jax.report.answers import MOST_HELD_OUT
from nft_jax.run import remote_workdir
from nft_jax.run.inspection import check_lines
from nft_jax.run.json_files import read_lines


def main(config: Config, workdir: Path) -> None:
    """Draws the curves, and writes the page of a run of `train`."""
    check_lines(workdir)
    has_answers = any("reward" in row for row in read_lines(workdir / "metrics.jsonl"))  # a supervised run has none
    others = [folder for folder in (flags.FLAGS.against or "").split(",") if folder]
    if others and not has_answers:
        raise ValueError(f"--against={flags.FLAGS.against}: {workdir} has no step of `train`, so no answers to compare")
    folders = [remote_workdir.open_workdir(folder, "--against") for folder in others]
    comparisons = [against.compare_runs(workdir, other, MOST_HELD_OUT) for other in folders]
    picture, drawing = curves.draw(workdir, page.title_of(config))
    print(picture)
    if not has_answers:
        return
    for comparison in comparisons:
        print(f"\n{against.tabulate_runs(comparison)}")
    print(page.write_page(workdir, config, page.read_results(workdir), drawing, comparisons))


if __name__ == "__main__":
    flags.DEFINE_string("against", None, "Other workdirs, comma between them, whose answers are compared.")
    cli.run(main, __doc__)
