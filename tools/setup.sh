#!/bin/sh
# Makes or refreshes a virtual environment with this package, in editable mode, inside.
#
#   PYTHON=... tools/setup.sh DIRECTORY EXTRAS [CONSTRAINTS]
#
# Does nothing when the environment is already what is asked for: DIRECTORY/stamps/EXTRAS holds what it was made from.
# While packages are being installed DIRECTORY/incomplete exists; a run that finds it starts afresh.
set -eu
cd "$(dirname "$0")/.."
venv=$1 extras=$2 constraints=${3:-}

fail() { echo "make: $1" >&2; exit 1; }
works() { "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

if [ -n "${PYTHON:-}" ]; then
    works "$PYTHON" || fail "PYTHON=$PYTHON is not a working Python >= 3.11 with venv and ensurepip"
    python=$PYTHON
else
    python=
    # A command of that name may exist and still fail (version managers leave such shims), hence the trial run.
    for candidate in python3.13 python3.12 python3.11 python3; do
        if works "$candidate"; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
        fail "no Python >= 3.11 with venv and ensurepip found; install one or run: make PYTHON=/path/to/python3.11"
    fi
fi

# An environment holds absolute paths: it is remade for another interpreter or when its folder has moved.
base="$("$python" -c 'import sys; print(sys.version, sys.base_prefix)') $(pwd)"
stamp="$venv/stamps/$(echo "$extras" | tr ',' '-')"
wanted="$extras $(cat pyproject.toml ${constraints:+"$constraints"} | cksum)"

if [ -e "$venv/incomplete" ] || [ "$(cat "$venv/stamps/base" 2>/dev/null)" != "$base" ]; then
    # Only what this script made is removed.
    if [ -e "$venv" ] && [ ! -d "$venv/stamps" ]; then
        fail "$venv exists but was not made here; remove it or run: make VENV=.venv-concordax"
    fi
    # Moved first, so that an interruption leaves no half of it behind under the name.
    rm -rf "$venv.old"
    if [ -e "$venv" ]; then mv "$venv" "$venv.old"; rm -rf "$venv.old"; fi
    echo "Setting up $venv with $("$python" --version)"
    mkdir -p "$venv/stamps"
    touch "$venv/incomplete"
    "$python" -m venv "$venv"
    echo "$base" >"$venv/stamps/base"
elif [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

touch "$venv/incomplete"
echo "Installing .[$extras] into $venv (the first time takes some minutes)"
# Twice quiet: errors only.
PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install -qq ${constraints:+--constraint "$constraints"} --editable ".[$extras]"
echo "$wanted" >"$stamp"
rm "$venv/incomplete"
