#!/usr/bin/env bash
# Style, then the tests; arguments go to pytest:
#   bash launch/test.sh [--dry-run] [-k words] [-m slow]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options "" "$@"
environment test

run ruff check .
run ruff format --check .
run exec python -m pytest ${rest[@]+"${rest[@]}"}
