# If Slurm and the MPI library do not understand each other, every rank believes to be alone: look first.
"${launch[@]}" "$python" -c "import sys; from mpi4py import MPI; sys.exit(MPI.COMM_WORLD.size != $SLURM_NTASKS)" || {
  echo "MPI does not see the $SLURM_NTASKS ranks that srun started: another value of mpi is needed (srun --mpi=list)" >&2
  exit 1
}

input={{input_quoted}}
result={{result_quoted}}
# what the program is told; its own time limit is not needed, as the signal comes from Slurm
options=({{options}})
# go on where an earlier start of this job stopped
if [ -e "$result.checkpoint" ]; then
  options+=(--resume)
fi

# In the background, since a shell that waits for a command in the foreground looks at signals only afterwards.
# srun passes the signal on to the ranks, which write a checkpoint after their iteration and end with code 4.
code=4
if [ -z "$time_is_up" ]; then
  "${launch[@]}" "$python" -m sqd_mpi run "$input" -o "$result" "${options[@]}" &
  solver=$!
  # a signal ends `wait` early: wait again
  while true; do
    interrupted=
    wait "$solver"
    code=$?
    [ -n "$interrupted" ] || break
  done
fi
# too late for another signal
trap '' USR1
# 128 + USR1: the signal came before the program listened; nothing is lost but the start
if [ "$code" -eq 138 ]; then
  code=4
fi

# 0: done; 3: not converged, result written; both with a table of the result in the log
if [ "$code" -eq 0 ] || [ "$code" -eq 3 ]; then
  "$python" -m sqd_mpi info "$result"
fi
%if packed_environment
# the unpacked environment is of no further use
srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 rm -rf "$environment"
%end
# 4: stopped with a checkpoint; go on only if the time was up, not after scancel
if [ "$code" -eq 4 ] && [ -n "$time_is_up" ]; then
%if on_time_limit=requeue
  restarts=${SLURM_RESTART_COUNT:-0}
  if [ "$restarts" -ge {{max_restarts}} ]; then
    echo "stopped after $restarts restarts; submit the script again to go on"
  else
    echo "the time is up: job $SLURM_JOB_ID goes back into the queue (restart $((restarts + 1)))"
    scontrol requeue "$SLURM_JOB_ID"
  fi
%end
%if on_time_limit=chain
  restarts=${SQD_MPI_RESTARTS:-0}
  if [ "$restarts" -ge {{max_restarts}} ]; then
    echo "stopped after $restarts restarts; submit the script again to go on"
  else
    echo "the time is up: a next job goes on (restart $((restarts + 1)))"
    sbatch --dependency="afterany:$SLURM_JOB_ID" --export="ALL,SQD_MPI_RESTARTS=$((restarts + 1))" {{script_quoted}}
  fi
%end
%if on_time_limit=stop
  echo "the time is up: submit the script again to go on"
%end
fi
exit "$code"
