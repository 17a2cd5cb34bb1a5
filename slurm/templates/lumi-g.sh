#!/bin/bash -l
# sqd_mpi on LUMI-G: 8 GPU dies and 56 usable cores a node, one rank for each die.
# Rendered by slurm/render.py; change slurm/settings.ini and render again. Never run on the real machine yet.
%needs account
%include request
# whole nodes
#SBATCH --exclusive
# all GPU dies of a node
#SBATCH --gpus-per-node={{ranks_per_node}}

%include environment
# CuPy looks for ROCm here when it compiles kernels
export ROCM_HOME="${ROCM_PATH:-}"
# GPU kernels, once compiled, on the node's own disk (in memory, as the nodes have none) as well
export CUPY_CACHE_DIR="$local_directory/sqd_mpi-gpu-kernels-$USER"
# MPI gets host memory only; with 1, Cray MPI wants a library that Python is not linked with
export MPICH_GPU_SUPPORT_ENABLED=0

%include launch
# the cores of rank 0 to 7 of a node, so that rank and die of the same number are neighbours (LUMI documentation)
launch+=("--cpu-bind=mask_cpu:7e000000000000,7e00000000000000,7e0000,7e000000,7e,7e00,7e00000000,7e0000000000")
# every rank sees the die of its number only; exec, so that signals reach Python
# shellcheck disable=SC2016  # expanded by the shell on the node
launch+=(bash -c 'ROCR_VISIBLE_DEVICES=$SLURM_LOCALID exec "$0" "$@"')

%include solve
