#!/bin/sh
# Runs a verb of sqd_mpi (run, plan, info, ...), or any program of the image (mpiexec, python, sh) as it is. Signals reach what
# is run, and its exit code is the container's.
set -eu
case "${1:-}" in
  "" | -* | import | run | sqd | plan | bench | info | report | extrapolate)
    exec python -m sqd_mpi "$@"
    ;;
esac
exec "$@"
