# how ranks are started: srun does not take over the CPUs of a rank from the lines above since Slurm 22.05
launch=(srun --ntasks="$SLURM_NTASKS" --ntasks-per-node={{ranks_per_node}} --cpus-per-task={{cpus_per_rank}})
%if mpi
# the way in which the ranks find each other; srun --mpi=list shows what the site has
launch+=(--mpi={{mpi}})
%end
# A stopped run ends with code 4 on every rank, at slightly different times: the first must not kill the others.
# If a rank dies, the others would wait for it: they are ended a minute later.
launch+=(--kill-on-bad-exit=0 --wait=60)
