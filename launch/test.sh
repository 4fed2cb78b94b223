#!/usr/bin/env bash
# Checks the style, then runs the tests; arguments go to pytest:
#   bash launch/test.sh [--dry-run] [-k words] [-m slow]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_options "" "$@"
use_environment test

run ruff check .
run ruff format --check .
run exec python -m pytest ${rest[@]+"${rest[@]}"}
