#!/bin/bash
# sqd_mpi on Frontier or a machine like it: 8 GPUs and 56 usable cores a node, one rank for each GPU.
# Rendered by slurm/render.py; change slurm/settings.ini and render again. Never run on the real machine yet.
%needs account
%include request
# whole nodes, which here come with all their GPUs
#SBATCH --exclusive

%include environment
# CuPy looks for ROCm here when it compiles kernels
export ROCM_HOME="${ROCM_PATH:-}"
%include devices

%include launch
# one GPU for a rank, the one nearest to its cores, and the cores bound
launch+=(--gpus-per-task=1 --gpu-bind=closest --cpu-bind=cores)

%include solve
