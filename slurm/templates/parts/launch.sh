# how ranks are started: srun does not take over the CPUs of a rank from the lines above since Slurm 22.05
launch=(srun --ntasks="$SLURM_NTASKS" --ntasks-per-node={{ranks_per_node}} --cpus-per-task={{cpus_per_rank}})
%if mpi
# the way in which the ranks find each other; srun --mpi=list shows what the site has
launch+=(--mpi={{mpi}})
%end
# A stopped run ends with code 4 on every rank, at slightly different times: the first must not kill the others.
# If a rank dies, the others would wait for it: they are ended a minute later.
launch+=(--kill-on-bad-exit=0 --wait=60)
%if mpi=pmi2
%if on_time_limit=requeue
# MPICH names its shared memory after job and step, so what killed ranks of an earlier start left would be taken for
# that of this start, and MPI would not start: on every node, remove what is old, ours and in use by no process.
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
  # shellcheck disable=SC2016  # expanded by the shell on the node
  srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 bash -c \
    'find /dev/shm -maxdepth 1 -name "mpich_shm_*" -uid "$(id -u)" -mmin +0 2>/dev/null | while read -r file; do
       grep -qsF "$file" /proc/[0-9]*/maps || rm -f "$file"
     done'
fi
%end
%end
