#!/bin/bash -l
# sqd_mpi on CPU nodes of Perlmutter: 128 cores in 8 NUMA domains.
# Rendered by slurm/render.py; change slurm/settings.ini and render again. Never run on the real machine yet.
%needs account
%include request
# whole nodes
#SBATCH --exclusive

%include environment

%include launch
# every rank keeps to its own cores, not to hardware threads shared with others
launch+=(--cpu-bind=cores)

%include solve
