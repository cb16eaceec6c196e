# Sourced by the scripts beside it: makes .venv on first use, and again when what it is made of
# changes. bootstrap EXTRA installs the project with that extra; "dev" includes "demo", "docs" and
# "report".

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 to 3.13 was found; install one, or name it: PYTHON=/path/to/python" >&2
    return 1
}

# Show the head of the script that was called, and fail.
usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 1
}

# The names of our files as well: what is installed are links to them, one by one.
fingerprint() {
    (
        cd "$root"
        cat pyproject.toml constraints.txt
        find coreai_opt lightning_callbacks conf -name __pycache__ -prune -o -type f -print | LC_ALL=C sort
    ) | cksum
}

is_installed() {
    [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.stamp-$1" 2>/dev/null)" = "$(fingerprint)" ]
}

make_venv() {
    local python
    if ! "$venv/bin/python" -c '' 2>/dev/null; then
        python=$(find_python)
        if ! "$python" -m venv --clear "$venv" >&2; then
            echo "error: $python cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2
            return 1
        fi
    fi
    echo "installing into $venv (once) ..." >&2
    (cd "$root" && "$venv/bin/python" -m pip install -q --disable-pip-version-check \
        -c constraints.txt -e ".[$1]") >&2
    warn_of_namesake
    fingerprint >"$venv/.stamp-$1"
    if [ "$1" = dev ]; then fingerprint | tee "$venv"/.stamp-{demo,docs} >"$venv/.stamp-report"; fi
}

warn_of_namesake() {
    "$venv/bin/python" - <<'PYTHON' >&2
from importlib.metadata import packages_distributions

names = sorted(set(packages_distributions().get("coreai_opt", [])))
if len(names) > 1:
    print(f"warning: {' and '.join(names)} both provide coreai_opt; uninstall one of them")
PYTHON
}

bootstrap() {
    if is_installed "$1"; then return; fi
    # Two first calls at once must not install into each other's environment.
    exec 9>"$root/.venv.lock"
    if command -v flock >/dev/null; then flock 9; fi
    if ! is_installed "$1"; then make_venv "$1"; fi
    exec 9>&-
}
