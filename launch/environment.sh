#!/usr/bin/env bash
# Makes the virtual environment in VENV (default .venv) once for each set of requirements; sourced by the other scripts.
# Variables: PYTHON (the interpreter to use), VENV, EXTRAS (default test).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV="${VENV:-.venv}"
case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac
EXTRAS="${EXTRAS:-test}"

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "no Python of version 3.11 or newer found; install one, or name it: PYTHON=/path/to/python3.11 bash $0" >&2
  return 1
}

# The stamp holds what was installed: the environment is made again when the requirements change.
stamp="$EXTRAS $(cksum <setup.py)"
if [ "$(cat "$VENV/.installed" 2>/dev/null)" != "$stamp" ]; then
  python="$(find_python)"
  echo "making the environment $VENV (once; a few minutes of download)"
  "$python" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[$EXTRAS]"
  echo "$stamp" >"$VENV/.installed"
fi
export PATH="$VENV/bin:$PATH"
