#!/usr/bin/env bash
# Checks the style, then runs the tests in two processes; arguments go to pytest:
#   bash launch/test.sh [--newest] [--dry-run] [-k words] [-m slow] [-n 8]
# --newest runs the tests of what JAX computes on the newest Python of this machine, with the newest JAX that setup.py
# allows, in an environment of its own: $VENV with _newest behind.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

newest=""
parse_options "newest?" "$@"
if [ "$newest" = yes ]; then
  PYTHON="$(find_newest_python)"
  if [ -z "$PYTHON" ]; then
    echo "skipped: --newest needs a Python newer than 3.11; none was found"
    exit 0
  fi
  export PYTHON EXTRAS=test VENV="${VENV:-.venv}_newest"
  rest=(tests/{losses,models} tests/rollout/test_engine.py tests/test_train.py ${rest[@]+"${rest[@]}"})
fi
use_environment test
# The losses of these libraries are compared with ours; nothing that the libraries need is.
case ",$EXTRAS," in
  *,parity,*) run python -m pip install --quiet --disable-pip-version-check --no-deps verl==0.9.1 trl==1.16.0 ;;
esac

if [ "$newest" = yes ]; then
  run python -c 'import jax, sys; print(f"Python {sys.version.split()[0]}, jax {jax.__version__}")'
else
  run ruff check .
  run ruff format --check .
fi
run exec python -m pytest -n 2 ${rest[@]+"${rest[@]}"}
