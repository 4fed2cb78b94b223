#!/usr/bin/env bash
# Style, then the tests; arguments go to pytest:  bash launch/test.sh [-k words] [-m slow]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

ruff check .
ruff format --check .
exec python -m pytest "$@"
