#!/usr/bin/env bash
# Checks the style, then runs the tests in two processes; arguments go to pytest:
#   bash launch/test.sh [--dry-run] [-k words] [-m slow] [-n 8]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_options "" "$@"
use_environment test
# The losses of these libraries are compared with ours; nothing that the libraries need is.
case ",$EXTRAS," in
  *,parity,*) run python -m pip install --quiet --disable-pip-version-check --no-deps verl==0.9.1 trl==1.16.0 ;;
esac

run ruff check .
run ruff format --check .
run exec python -m pytest -n 2 ${rest[@]+"${rest[@]}"}
