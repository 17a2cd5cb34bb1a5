#!/bin/bash -l
# sqd_mpi on LUMI-G: 8 GPU dies and 56 usable cores a node, one rank for each die.
# Rendered by slurm/render.py; change slurm/settings.ini and render again. Never run on the real machine yet.
%needs account
%include request
# whole nodes
#SBATCH --exclusive
# all GPU dies of a node
#SBATCH --gpus-per-node={{devices_per_node}}

%include environment
# CuPy looks for ROCm here when it compiles kernels
export ROCM_HOME="${ROCM_PATH:-}"
# the nodes have no disk: what is kept "on disk" lies in their memory
%include devices

%include launch
# the cores of rank 0 to 7 of a node, so that rank and die of the same number are neighbours (LUMI documentation)
launch+=("--cpu-bind=mask_cpu:7e000000000000,7e00000000000000,7e0000,7e000000,7e,7e00,7e00000000,7e0000000000")
# every rank sees the die of its number only (ROCR_, as HIP_VISIBLE_DEVICES leaves the others open); exec, so that
# signals reach Python
# shellcheck disable=SC2016  # expanded by the shell on the node
launch+=(bash -c 'ROCR_VISIBLE_DEVICES=$((SLURM_LOCALID % {{devices_per_node}})) exec "$0" "$@"')

%include solve
