#!/bin/bash
# sqd_mpi on a cluster with GPUs. Rendered by slurm/render.py; change slurm/settings.ini and render again.
%needs devices_per_node
%include request
# memory of a node; 0 is all of it
#SBATCH --mem={{node_memory}}
# GPUs of a node; which rank takes which is said below
#SBATCH --gpus-per-node={{devices_per_node}}

%include environment
%include devices

%include launch
# every rank keeps to its own cores; all GPUs of the node are shown to every rank, which takes that of its number on
# the node (more ranks than GPUs share them)
launch+=(--cpu-bind=cores --gpu-bind=none)

%include solve
