#!/usr/bin/env bash
# Makes .venv and installs bodyfit into it: `setup.sh core` for use, `setup.sh test` adds what the tests need.
# The Makefile calls it when pyproject.toml, constraints.txt or this file has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
part=${1:?core or test}

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# Installs Debian packages when this user may; otherwise says what to type and stops.
install_packages() {
    local why=$1 sudo=()
    shift
    if [ "$(id -u)" != 0 ]; then sudo=(sudo -n); fi
    if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
        say "installing $* ($why)"
        "${sudo[@]}" apt-get update -qq &&
            "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null &&
            return
    fi
    fail "$why. Please type:  sudo apt-get install $*"
}

find_python() {
    local name
    for name in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
}

make_venv() {
    local python
    python=$(find_python)
    [ -n "$python" ] || install_packages "${PYTHON:-python3.11} is not here or is older than 3.11" python3.11 python3.11-venv
    python=$(find_python)
    [ -n "$python" ] || fail "no Python 3.11 or later; name one with  make PYTHON=/path/to/python3.11"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        install_packages "$python cannot make virtual environments" \
            "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    say "making .venv with $("$python" --version)"
    "$python" -m venv .venv
}

# Open3D's library is linked against these and its wheel does not bring them.
install_libraries_of_open3d() {
    [ "$(uname -s)" = Linux ] || return 0
    local pair packages=()
    for pair in libusb-1.0.so.0:libusb-1.0-0 libEGL.so.1:libegl1 libGL.so.1:libgl1 libX11.so.6:libx11-6 \
        libidn2.so.0:libidn2-0 libudev.so.1:libudev1; do
        if ! .venv/bin/python -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "${pair%%:*}" 2>/dev/null; then
            packages+=("${pair##*:}")
        fi
    done
    [ ${#packages[@]} = 0 ] || install_packages "Open3D needs system libraries" "${packages[@]}"
}

[ -x .venv/bin/pip ] || make_venv
pip() { .venv/bin/python -m pip install --quiet --constraint constraints.txt "$@"; }

case $part in
core)
    install_libraries_of_open3d
    say "installing bodyfit (some 300 MB the first time)"
    pip --editable .
    ;;
test)
    # torch by itself and first: chosen by its own index or wheel, it is not exchanged by what follows.
    say "installing torch, then the tools of the tests"
    # shellcheck disable=SC2086
    pip ${TORCH_ARGS:-} torch
    pip --editable '.[test]'
    .venv/bin/python -m pip check
    ;;
*) fail "unknown part $part: core or test" ;;
esac
