#!/usr/bin/env bash
# A strong scaling study of N2 on this machine: 1, 2 and as many ranks as there are cores, one thread each, then a table.
#
#     bash examples/scaling/this_machine.sh [FOLDER [ORBITALS [REPEATS]]]        (build/scaling, 12, 3)
#
# With matplotlib there is a picture as well. Python is that of the PATH, or $PYTHON. Read docs/scaling.md for the columns.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python3}
folder=${1:-build/scaling}
mkdir -p "$folder"

"$python" "$root/examples/n2/make_input.py" --orbitals "${2:-12}" -o "$folder/n2.h5"
ranks=$("$python" -c 'import os; n = len(os.sched_getaffinity(0)); print(*sorted({1, 2, n}), sep=",")')
picture=()
if "$python" -c 'import matplotlib' 2>/dev/null; then
  picture=(--plot "$folder/study.png")
fi
"$python" "$root/scripts/scaling.py" run "$folder/n2.h5" --ranks "$ranks" --threads 1 --repeats "${3:-3}" \
  -o "$folder/study" "${picture[@]}" -- --tol 1e-6
