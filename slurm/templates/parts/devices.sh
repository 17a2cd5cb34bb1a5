%if kernel_cache
# GPU kernels, once compiled, on the node's own disk as well: those of sqd_mpi and those that CuPy brings
export SQD_MPI_GPU_CACHE="{{kernel_cache}}-gpu" CUPY_CACHE_DIR="{{kernel_cache}}-gpu"
%end
%if gpu_aware_mpi=yes
# MPI sends from GPU memory; Cray MPI then wants its GTL library, with which mpi4py must have been linked
export MPICH_GPU_SUPPORT_ENABLED=1
%else
# MPI gets host memory only; with 1, Cray MPI wants a library that Python is not linked with
export MPICH_GPU_SUPPORT_ENABLED=0
%end
