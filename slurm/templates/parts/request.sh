# name in the queue and of the log
#SBATCH --job-name={{name}}
%if account
# project to charge
#SBATCH --account={{account}}
%end
%if partition
# queue
#SBATCH --partition={{partition}}
%end
%if qos
# quality of service
#SBATCH --qos={{qos}}
%end
%if constraint
# features that the nodes must have
#SBATCH --constraint={{constraint}}
%end
# number of nodes, MPI ranks on each, and CPUs of a rank
#SBATCH --nodes={{nodes}}
#SBATCH --ntasks-per-node={{ranks_per_node}}
#SBATCH --cpus-per-task={{cpus_per_rank}}
# wall time after which Slurm ends the job
#SBATCH --time={{time}}
# folder in which the job runs
#SBATCH --chdir={{directory_quoted}}
# one log for output and errors, continued when the job is started again
#SBATCH --output={{name}}-%j.out
#SBATCH --open-mode=append
# {{signal_lead}} s before the time is up, this shell (B:) gets USR1; Slurm may send it a minute earlier
#SBATCH --signal=B:USR1@{{signal_lead}}
%if on_time_limit=requeue
# the job may be put back into the queue: by itself below, and by Slurm after a node failure
#SBATCH --requeue
%else
# Slurm must not start the job again by itself
#SBATCH --no-requeue
%end
