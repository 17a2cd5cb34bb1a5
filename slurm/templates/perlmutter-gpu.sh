#!/bin/bash -l
# sqd_mpi on GPU nodes of Perlmutter: 4 GPUs and 64 cores, one rank for each GPU.
# Rendered by slurm/render.py; change slurm/settings.ini and render again. Never run on the real machine yet.
%needs account
%include request
# whole nodes
#SBATCH --exclusive
# all GPUs of a node; which rank takes which is said below
#SBATCH --gpus-per-node={{devices_per_node}}
#SBATCH --gpu-bind=none

%include environment
# the nodes have no disk: what is kept "on disk" lies in their memory
%include devices

%include launch
# every rank keeps to its own cores
launch+=(--cpu-bind=cores --gpu-bind=none)
# every rank sees one GPU; the one near its cores counts from the other end; exec, so that signals reach Python
# shellcheck disable=SC2016  # expanded by the shell on the node
launch+=(bash -c 'CUDA_VISIBLE_DEVICES=$(({{devices_per_node}} - 1 - SLURM_LOCALID % {{devices_per_node}})) exec "$0" "$@"')

%include solve
