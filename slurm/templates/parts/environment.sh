# when the time is nearly up, the signal is passed on to the solver, once there is one
time_is_up=
interrupted=
solver=
trap 'time_is_up=1; interrupted=1; if [ -n "$solver" ]; then kill -USR1 "$solver"; fi' USR1
%if modules
# the site's libraries
module load {{modules}}
%end
%if setup
# other preparations, from the settings
{{setup}}
%end
# an unset variable is an error; exit codes are looked at where they matter
set -uo pipefail
# a folder on the node's own disk, the same name on every node
export local_directory="{{local_directory}}"
%if packed_environment
# Hundreds of nodes that import Python from one file system wait for it: each unpacks its own copy instead.
environment="$local_directory/sqd_mpi-environment-$SLURM_JOB_ID"
# one task on every node makes the folder
srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 mkdir -p "$environment" || exit 1
# the archive travels as a tree over the network; --force replaces what an earlier start of the job left
sbcast --force --preserve "{{packed_environment}}" "$environment.tar.gz" || { echo "sbcast failed" >&2; exit 1; }
# every node unpacks, and conda-unpack, where the archive has it, puts the new place into the scripts
# shellcheck disable=SC2016  # expanded by the shell on the node
srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 bash -c \
  'tar -xzf "$0.tar.gz" -C "$0" && rm -f "$0.tar.gz" && cd "$0" && if [ -x bin/conda-unpack ]; then bin/python bin/conda-unpack; fi' \
  "$environment" || { echo "unpacking failed" >&2; exit 1; }
python="$environment/bin/python"
%else
# the Python in which sqd_mpi is installed
python="{{python}}"
%end
%if kernel_cache
# compiled kernels: on the node's own disk, as caches on network file systems have races
export NUMBA_CACHE_DIR="{{kernel_cache}}"
%else
# compiled kernels: beside the package, also under Slurm
export NUMBA_CACHE_DIR=
%end
# for whatever runs here; the solver is told by --threads, which goes first
export NUMBA_NUM_THREADS={{threads}} OMP_NUM_THREADS={{threads}}
