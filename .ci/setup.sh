#!/usr/bin/env bash
# Makes .venv ready to run and test: pinned Python packages, data packages, Debian packages.
# Runs in a second or two when nothing is missing. Usage: .ci/setup.sh [--no-debian | --tests]
# --tests adds the foreign programs that some tests work against; those tests skip without them.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
fail() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

# ---- Debian packages -------------------------------------------------------------------------
# install_debian PACKAGE...: through apt as root or by sudo; returns 1 with instructions otherwise.
install_debian() {
    local sudo=""
    if ! command -v apt-get >/dev/null; then
        say "no apt-get here; install the equivalent of these by hand: $*"; return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
            sudo="sudo"; say "sudo is needed to install: $*"
        else
            say "neither root nor sudo here; ask an administrator for:  apt-get install $*"; return 1
        fi
    fi
    say "installing Debian packages: $*"
    { $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
      $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; } ||
        { say "apt-get failed; install by hand:  apt-get install $*"; return 1; }
}

command -v "$PYTHON" >/dev/null || { [ "$PYTHON" = python3 ] && install_debian python3; } ||
    fail "there is no $PYTHON; Python 3.11 or newer is needed (set PYTHON=...)"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$PYTHON is $("$PYTHON" -V 2>&1); Python 3.11 or newer is needed (set PYTHON=...)"

if [ "${1:-}" != "--no-debian" ]; then
    missing=()
    # The FEM runs under an interpreter of its own that has dolfinx (Debian's, or the current one under conda).
    "$PYTHON" -c 'import dolfinx' 2>/dev/null || /usr/bin/python3 -c 'import dolfinx' 2>/dev/null ||
        missing+=(python3-dolfinx)
    command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
    if [ "${1:-}" = "--tests" ]; then
        command -v gdb-multiarch >/dev/null || missing+=(gdb-multiarch)
        command -v softhsm2-util >/dev/null || missing+=(softhsm2)
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        install_debian "${missing[@]}" ||
            say "going on without ${missing[*]}: everything that does not need them works"
    fi
fi

# ---- Python packages ---------------------------------------------------------------------------
stamp=.venv/.ready-$(cat constraints.txt pyproject.toml .ci/setup.sh | sha256sum | cut -c1-16)
[ -e "$stamp" ] && [ -x .venv/bin/twin ] && exit 0

if [ ! -x .venv/bin/python ]; then
    say "creating .venv with $("$PYTHON" -V)"
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || install_debian python3-venv ||
        fail "the venv module is missing: apt-get install python3-venv"
    "$PYTHON" -m venv .venv
elif ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    .venv/bin/python -m ensurepip
fi
say "installing the pinned Python packages (a few minutes the first time)"
.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt uv || true
if [ -x .venv/bin/uv ]; then
    pip=(.venv/bin/uv pip install -q --python .venv/bin/python)
else
    pip=(.venv/bin/python -m pip install -q --disable-pip-version-check)
fi
"${pip[@]}" -c constraints.txt -e '.[ota,dev]'
# Packages taken for the measured data they ship (prices, loads, weather, driving cycles): never
# imported, so installed without their dependencies and read through importlib.metadata.
mapfile -t data < <(grep -E '^(ev2gym|emobpy|demandlib)==' constraints.txt)
"${pip[@]}" --no-deps "${data[@]}"
rm -f .venv/.ready-*
touch "$stamp"
say "ready"
