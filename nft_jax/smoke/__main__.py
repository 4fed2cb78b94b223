"""Tests a machine or a slice in a few minutes, before it is trusted with a run. All hosts run the same command.

    python -m nft_jax.smoke --workdir=DIR [--distributed=auto] [--seconds=300] [--config.section.field=value]

The checks: all hosts are there; decode loops of different lengths give the same answers as loops in step; the verifier
grades each answer once, on its host; each attention kernel of the platform agrees with XLA; a run is killed after three
steps, and resumes. It prints a line for each check and a table at the end, writes `smoke.json` into the workdir, and
exits with code 1 if a check failed. A check that takes longer than --seconds (training: twice that) ends after printing
the stacks of its threads. All other flags are passed on to the child processes, which run one after the other; only
they use the devices.
"""

import argparse
import sys
from pathlib import Path

from nft_jax import command_words
from nft_jax.printing import show_control_characters
from nft_jax.smoke.runner import SmokeTest


def main() -> int:
    """Runs the smoke test; returns the exit code."""
    show_control_characters()
    if {"--help", "--helpfull", "-h", "-help"} & set(sys.argv):
        print(__doc__)
        return 0
    try:
        known, others = _parser().parse_known_args(command_words.prepare(sys.argv[1:]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not known.workdir:
        print("error: --workdir=DIR is needed; on a slice, a folder that all hosts share", file=sys.stderr)
        return 2
    if (config := command_words.take(others, "--config").value) is not None:
        print(f"error: --config={config}: the smoke test has its own config; leave this out", file=sys.stderr)
        return 2
    if "://" not in known.workdir:
        try:
            Path(known.workdir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            print(f"error: --workdir={known.workdir}: {error.strerror}; give another folder", file=sys.stderr)
            return 2
    test = SmokeTest(known.workdir, known.seconds, others)
    test.check_devices()
    if test.facts:
        test.train()
    return test.report()


def _parser() -> argparse.ArgumentParser:
    # Not absl's flags: others must reach the child processes, and this process must not load jax.
    parser = argparse.ArgumentParser("nft_jax.smoke", add_help=False, allow_abbrev=False)
    parser.add_argument("--workdir")
    parser.add_argument("--seconds", type=int, default=300)
    return parser


if __name__ == "__main__":
    sys.exit(main())
