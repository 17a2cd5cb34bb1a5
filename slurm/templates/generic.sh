#!/bin/bash
# sqd_mpi on a CPU cluster. Rendered by slurm/render.py; change slurm/settings.ini and render again.
%include request
# memory of a node; 0 is all of it
#SBATCH --mem={{node_memory}}

%include environment

%include launch
# every rank keeps to its own cores
launch+=(--cpu-bind=cores)

%include solve
