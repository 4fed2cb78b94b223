#!/usr/bin/env bash
# Runs an experiment on this machine, from nothing: environment, package, data, warm start, training, picture.
#   bash launch/local.sh [--config=NAME_OR_FILE] [--workdir=DIR] [--config.section.field=value ...]
# The default is --config=tiny --workdir=runs/tiny; the same workdir resumes. Exit code 75 means: stopped on request, all
# that was done is saved, run the same command again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# XLA takes 256-bit vectors unless asked; on a CPU that has wider ones, exponentials and random bits take half the time.
if grep -qs avx512f /proc/cpuinfo; then
  export XLA_FLAGS="--xla_cpu_prefer_vector_width=512 ${XLA_FLAGS:-}"
fi

arguments=("$@")
[[ " $* " == *" --config="* ]] || arguments+=(--config=tiny)
[[ " $* " == *" --workdir="* ]] || arguments+=(--workdir=runs/tiny)
exec python -m nft_jax.train "${arguments[@]}"
