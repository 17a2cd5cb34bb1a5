#!/usr/bin/env bash
# Builds wheel and sdist, checks both, and installs the wheel without its dependencies into a fresh environment that borrows those
# of .venv: it must be importable with its types and its sources, print what it is, and plan. The whole matrix is `make matrix`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p build
make --no-print-directory --silent dist >build/dist.log 2>&1 || { cat build/dist.log; exit 1; }

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
.venv/bin/python -m venv --without-pip "$fresh/env"
site=$("$fresh/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$site" dist/*.whl
.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/borrowed.pth"
cd "$fresh"
env/bin/python - <<'END'
from pathlib import Path
import sqd_mpi
folder = Path(sqd_mpi.__file__).parent
assert "env/lib" in str(folder), f"sqd_mpi comes from {folder}"
assert (folder / "py.typed").exists(), "the wheel lacks py.typed"
END
env/bin/python -m sqd_mpi info >info.txt || { cat info.txt; exit 1; }
echo "the wheel installs: $(env/bin/python -m sqd_mpi --version)"
