#!/usr/bin/env bash
# Functions that the launch scripts share. The scripts source this file; running it does nothing:
#   bash launch/common.sh --help
# Every script has --help (prints the comment at its head) and --dry-run (prints the commands and runs none). Exit code
# 75 of a program means: it stopped on request and saved its work; run the same command again.
# Variables: PYTHON (the interpreter), VENV (default .venv), EXTRAS (of setup.py). Where a command is repeated: PAUSE
# (seconds between two runs, default 10) and MOST_TRIES (default 1000).
# Works with bash 3.2, the version of macOS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

AGAIN=75
# Limits for a program that ends with 75 without doing anything.
PAUSE="${PAUSE:-10}"
MOST_TRIES="${MOST_TRIES:-1000}"

dry_run=no rest=()
# For the scripts in tpu/: the slice, and how many slices there are.
name="" zone="" project="" slices=1

fail() {
  echo "error: $*" >&2
  exit 2
}

# parse_options "NAMES" WORDS: sets the variable NAME (_ in place of -) from --NAME=VALUE or --NAME VALUE; a name that
# ends with ? is a switch, which is "yes" from --NAME. All other words, and all words after --, go into the array
# `rest`; the config and the workdir go there as --NAME=VALUE, because scripts look for them.
parse_options() {
  local allowed=" $1 " word option value
  shift
  while (($#)); do
    word="$1"
    shift
    option="${word#-}"
    option="${option#-}"
    value="${option#*=}"
    option="${option%%=*}"
    case "$word" in
      --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
      --dry-run) dry_run=yes ;;
      --)
        rest+=("$@")
        return
        ;;
      -*)
        if [[ "$allowed" == *" $option? "* ]]; then
          [[ "$word" != *=* || "$value" == yes ]] || fail "--$option is a switch: leave =$value out"
          printf -v "${option//-/_}" yes
        elif [[ "$allowed config workdir " == *" $option "* ]]; then
          if [[ "$word" != *=* ]]; then
            (($#)) && [[ "$1" != -* ]] || fail "--$option needs a value: --$option=…"
            value="$1"
            shift
          fi
          if [[ "$allowed" == *" $option "* ]]; then
            printf -v "${option//-/_}" '%s' "$value"
          else
            rest+=("--$option=$value")
          fi
        else
          rest+=("$word")
        fi
        ;;
      *) rest+=("$word") ;;
    esac
  done
}

# require NAMES: ends the script unless each of these variables has a value.
require() {
  local option
  for option in "$@"; do
    [ -n "${!option}" ] || fail "--${option//_/-}=… is needed; see bash $0 --help"
  done
}

# For scripts that take only their own flags: ends the script if there are other words.
refuse_words() {
  ((${#rest[@]} == 0)) || fail "${rest[0]} is not a flag of this script; bash $0 --help lists the flags"
}

# Prints a command with the quotes that a shell needs.
quote_command() {
  local word line="" flag
  for word in "$@"; do
    flag=""
    if [[ "$word" =~ ^[A-Za-z0-9_.-]+= ]]; then flag="${BASH_REMATCH[0]}"; fi
    word="${word#"$flag"}"
    if [[ "$word" == *\'* ]]; then
      word="$(printf '%q' "$word")"
    elif [[ ! "$word" =~ ^[A-Za-z0-9_./:=,@%+-]*$ || -z "$flag$word" ]]; then
      word="'$word'"
    fi
    line+="${line:+ }$flag$word"
  done
  echo "$line"
}

# Runs a command; a dry run prints it.
run() {
  if [ "$dry_run" = yes ]; then quote_command "$@"; else "$@"; fi
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "found no Python 3.11 or newer; install one, or name it: PYTHON=/path/to/python3.11 bash $0" >&2
  return 1
}

# Prints the newest Python after 3.11, in PATH or among those of pyenv; prints nothing if there is none.
find_newest_python() {
  local minor versions=""
  if command -v pyenv >/dev/null; then versions="$(pyenv versions --bare 2>/dev/null || true)"; fi
  for minor in 14 13 12; do
    # pyenv has programs in PATH for versions that are not chosen; they fail.
    if "python3.$minor" -c '' 2>/dev/null; then
      command -v "python3.$minor"
      return
    elif [[ "$versions" =~ (^|[^0-9.])(3\.$minor\.[0-9]+) ]]; then
      PYENV_VERSION="${BASH_REMATCH[2]}" pyenv which python
      return
    fi
  done
}

# Puts the virtual environment first in PATH; makes it first if it is missing or the requirements have changed.
use_environment() {
  EXTRAS="${EXTRAS:-$1}" VENV="${VENV:-.venv}"
  case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac
  # The stamp identifies the installed requirements.
  local python stamp
  stamp="$EXTRAS $(cksum <setup.py)"
  if [ "$(cat "$VENV/.installed" 2>/dev/null)" != "$stamp" ]; then
    python="$(find_python)"
    [ "$dry_run" = yes ] || echo "making the environment $VENV (only once; the download takes a few minutes)"
    run "$python" -m venv "$VENV"
    run "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[$EXTRAS]"
    [ "$dry_run" = yes ] || echo "$stamp" >"$VENV/.installed"
  fi
  export PATH="$VENV/bin:$PATH"
}

# Runs a command, and repeats it while it ends with 75. Signals to this script are passed on to the command, and end the
# repetition.
repeat() {
  local child="" code=0 signaled=no tries
  if [ "$dry_run" = yes ]; then
    quote_command "$@"
    return
  fi
  # In a separate process group, the command gets Ctrl-C only from here, and does not ignore it as background jobs do.
  set -m
  trap 'signaled=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM HUP
  trap 'signaled=yes; [ -z "$child" ] || kill -INT "$child" 2>/dev/null || true' INT
  for ((tries = 1; ; tries++)); do
    "$@" &
    child=$!
    # A signal that came before the child was known.
    if [ "$signaled" = yes ]; then kill -TERM "$child" 2>/dev/null || true; fi
    code=0
    wait "$child" || code=$?
    # A signal ends `wait` but not the command.
    while kill -0 "$child" 2>/dev/null; do
      code=0
      wait "$child" || code=$?
    done
    if ((code != AGAIN)) || [ "$signaled" = yes ]; then break; fi
    if ((tries >= MOST_TRIES)); then
      echo "exit code $AGAIN for the ${tries}th time; giving up" >&2
      break
    fi
    echo "exit code $AGAIN (work is saved); running the same command again in $PAUSE s" >&2
    # In the background, so that a signal takes effect at once.
    sleep "$PAUSE" &
    wait $! || true
    if [ "$signaled" = yes ]; then break; fi
  done
  trap - TERM HUP INT
  set +m
  return "$code"
}

# Sets `where`, the flags of gcloud that locate the slice.
require_slice() {
  require name zone
  where=("--zone=$zone")
  if [ -n "$project" ]; then where+=("--project=$project"); fi
}

# on_workers WHICH COMMAND: runs the command by ssh on these workers (a number, or all) of every slice.
on_workers() {
  local way=(tpu-vm ssh "$name")
  if ((slices > 1)); then way=(queued-resources ssh "$name" --node=all); fi
  run gcloud compute tpus "${way[@]}" "${where[@]}" "--worker=$1" "--command=$2"
}

# pack FILE: writes the working tree as an archive, without files that only this machine needs.
pack() {
  run tar -czf "$1" --exclude=.git --exclude='.venv*' --exclude=./runs --exclude=./build --exclude=./dist \
    --exclude=__pycache__ --exclude='*.egg-info' --exclude='.*_cache' .
}

# Prints the runtime version of a TPU type.
runtime() {
  case "$1" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    *) fail "--type=$1: use v5litepod-N, v6e-N (N chips), v5p-N, v4-N (N = 2 × chips), or give --version=RUNTIME too" ;;
  esac
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  parse_options "" "$@"
  refuse_words
fi
