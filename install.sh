#!/usr/bin/env bash
# ./install.sh         installs into the active Python if it has PyTorch, else into .venv
# ./install.sh demo    installs, then runs the demo (under 5 minutes on 2 cores)
# ./install.sh test    installs, then lints, checks types and runs the tests
# It compiles the CPU and CUDA ops where the machine can; APML_BUILD=auto|cpu|cuda|off says otherwise (see setup.py).
# Words after demo or test go on to `apml demo` and pytest. Nothing outside this folder is changed but the
# active Python's packages, and those only if that Python already has PyTorch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

TORCH=2.13.0 # the tested version; any PyTorch from 2.4 on is used as it is where it is found
say() { printf '[install] %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has_torch() { "$1" -c 'import torch' >/dev/null 2>&1; }
is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

find_python() {
    local name
    for name in python python3; do # an activated environment comes first in PATH
        if command -v "$name" >/dev/null && is_recent "$name" && has_torch "$name"; then
            command -v "$name"
            return
        fi
    done
    if [ -x .venv/bin/python ]; then
        echo "$PWD/.venv/bin/python"
        return
    fi
    for name in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if command -v "$name" >/dev/null && is_recent "$name"; then
            say "no active Python has PyTorch: making .venv with $(command -v "$name")"
            "$name" -m venv .venv >&2 || die "python -m venv failed; on Debian and Ubuntu: apt install python3-venv"
            echo "$PWD/.venv/bin/python"
            return
        fi
    done
    die "Python 3.10 or newer is needed and was not found in PATH"
}

install() {
    local extras=$1 pip=("$PYTHON" -m pip --disable-pip-version-check -q)
    if ! has_torch "$PYTHON"; then
        say "installing torch==$TORCH (the longest step)"
        "${pip[@]}" install "torch==$TORCH"
    fi
    say "installing apml-plugin and what it needs into $("$PYTHON" -c 'import sys; print(sys.prefix)')" \
        "(the first time, compiling takes a minute)"
    "${pip[@]}" install "setuptools>=77" wheel
    if ! PATH="$(dirname "$PYTHON"):$PATH" command -v ninja >/dev/null; then
        "${pip[@]}" install ninja || say "without ninja every install compiles everything anew"
    fi
    "${pip[@]}" install --no-build-isolation -e ".$extras"
    if grep -q 'the compile failed' apml_plugin/_build.json; then
        tail -n 15 build/ops.log >&2
    fi
    say "compiled ops: $("$PYTHON" -c 'from apml_plugin.cli.doctor import compiled_ops; print(compiled_ops())')"
}

command=${1:-install}
[ $# -gt 0 ] && shift
case $command in install | demo | test) ;; *) die "unknown word '$command': use install, demo or test" ;; esac

PYTHON=$(find_python)
case $command in
install)
    install ""
    say "done: $(dirname "$PYTHON")/apml --help"
    ;;
demo)
    install ""
    "$PYTHON" -m apml_plugin demo "$@"
    ;;
test)
    install "[test]"
    say "ruff"
    "$PYTHON" -m ruff check .
    "$PYTHON" -m ruff format --check -q . || die "run: ruff format ."
    say "mypy"
    "$PYTHON" -m mypy
    say "pytest"
    "$PYTHON" -m pytest -n 2 "$@"
    ;;
esac
