#!/bin/bash -l
# sqd_mpi on GPU nodes of Perlmutter: 4 GPUs and 64 cores, one rank for each GPU.
# Rendered by slurm/render.py; change slurm/settings.ini and render again. Never run on the real machine yet.
%needs account
%include request
# whole nodes
#SBATCH --exclusive
# all GPUs of a node; which rank takes which is said below
#SBATCH --gpus-per-node={{ranks_per_node}}
#SBATCH --gpu-bind=none

%include environment
# GPU kernels, once compiled, on the node's own disk (in memory, as the nodes have none) as well
export CUPY_CACHE_DIR="$local_directory/sqd_mpi-gpu-kernels-$USER"
# MPI gets host memory only; with 1, Cray MPI wants a library that Python is not linked with
export MPICH_GPU_SUPPORT_ENABLED=0

%include launch
# every rank keeps to its own cores
launch+=(--cpu-bind=cores --gpu-bind=none)
# every rank sees one GPU; the one near its cores counts from the other end; exec, so that signals reach Python
# shellcheck disable=SC2016  # expanded by the shell on the node
launch+=(bash -c 'CUDA_VISIBLE_DEVICES=$((3 - SLURM_LOCALID)) exec "$0" "$@"')

%include solve
