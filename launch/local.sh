#!/usr/bin/env bash
# Runs an experiment on this machine, from nothing: environment, package, data, warm start, training, picture.
#   bash launch/local.sh [--config=NAME_OR_FILE] [--workdir=DIR] [--config.section.field=value ...]
# The default is --config=tiny --workdir=runs/tiny; the same workdir resumes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

arguments=("$@")
[[ " $* " == *" --config="* ]] || arguments+=(--config=tiny)
[[ " $* " == *" --workdir="* ]] || arguments+=(--workdir=runs/tiny)
exec python -m nft_jax.train "${arguments[@]}"
