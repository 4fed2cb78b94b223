#!/usr/bin/env bash
# Runs an experiment on this machine, with nothing installed before: environment, data, warm start, training, picture.
#   bash launch/local.sh [--dry-run] [--config=NAME_OR_FILE] [--workdir=DIR] [--config.section.field=value ...]
# The default is --config=tiny, and --workdir=runs/NAME for the config NAME. The same workdir resumes. Exit code 75 means: the run stopped on
# request and saved its work; run the same command again. Relative paths start at the checkout, wherever you call it from.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_options "" "$@"
use_environment test

# XLA uses 256-bit vectors by default. With wider ones, exponentials and random bits take half the time.
wide=""
if grep -qs avx512f /proc/cpuinfo; then wide="--xla_cpu_prefer_vector_width=512 "; fi

[[ " ${rest[*]-} " == *" --config="* ]] || rest+=(--config=tiny)
if [[ " ${rest[*]-} " != *" --workdir="* ]]; then
  for word in "${rest[@]}"; do
    if [[ "$word" == --config=* ]]; then config="$(basename "${word#--config=}" .py)"; fi
  done
  rest+=("--workdir=runs/$config")
fi
run exec env XLA_FLAGS="$wide${XLA_FLAGS:-}" python -m nft_jax.train "${rest[@]}"
