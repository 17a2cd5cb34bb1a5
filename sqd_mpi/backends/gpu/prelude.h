// Stands in front of every kernel file, on a GPU and on the host shim: the few words in which they differ.
//
// Kernels use the common subset of CUDA and HIP: extern "C" __global__ functions, no includes, no cooperative groups,
// no warp intrinsics (a wavefront of AMD has 64 lanes), no floating-point atomics; indices have 64 bits.

typedef long long Index;

#ifdef SQD_HOST
#define SHARED_DOUBLES(name) double* const name = (double*)shim::shared_memory
#else
#define SHARED_DOUBLES(name) extern __shared__ double name[]
#endif
