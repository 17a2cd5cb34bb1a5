#!/usr/bin/env bash
# Makes an input of N2 and a Slurm job that solves it on two ranks of one node: n2.sh FOLDER [options of slurm/render.py].
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=${1:?usage: n2.sh FOLDER [options of slurm/render.py]}
shift
python=$(command -v "${PYTHON:-python3}")
mkdir -p "$folder"

"$python" "$root/examples/n2/make_input.py" --orbitals 8 -o "$folder/n2.h5"
"$python" "$root/slurm/render.py" generic --input "$folder/n2.h5" --nodes 1 -o "$folder/job.sh" \
  --set python="$python" --set ranks_per_node=2 --set cpus_per_rank=1 --set threads=1 --set time=00:10:00 "$@"
