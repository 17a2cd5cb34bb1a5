// What the kernels need of HIP's headers, so that plain clang compiles them for AMD devices where no ROCm is installed.
// Only for tests: on a machine with AMD devices hipRTC brings the real ones.
#pragma once

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __host__ __attribute__((host))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(threads, ...) __attribute__((amdgpu_flat_work_group_size(1, threads)))

// An empty member that reads as the number an instruction gives.
#define SQD_STUB_NUMBER(name, value) \
  struct name { \
    __device__ __forceinline__ operator unsigned() const { return value; } \
  }
SQD_STUB_NUMBER(ThreadX, __builtin_amdgcn_workitem_id_x());
SQD_STUB_NUMBER(ThreadY, __builtin_amdgcn_workitem_id_y());
SQD_STUB_NUMBER(ThreadZ, __builtin_amdgcn_workitem_id_z());
SQD_STUB_NUMBER(BlockX, __builtin_amdgcn_workgroup_id_x());
SQD_STUB_NUMBER(BlockY, __builtin_amdgcn_workgroup_id_y());
SQD_STUB_NUMBER(BlockZ, __builtin_amdgcn_workgroup_id_z());
SQD_STUB_NUMBER(SizeX, __builtin_amdgcn_workgroup_size_x());
SQD_STUB_NUMBER(SizeY, __builtin_amdgcn_workgroup_size_y());
SQD_STUB_NUMBER(SizeZ, __builtin_amdgcn_workgroup_size_z());
SQD_STUB_NUMBER(GridX, (__builtin_amdgcn_grid_size_x() / __builtin_amdgcn_workgroup_size_x()));
SQD_STUB_NUMBER(GridY, (__builtin_amdgcn_grid_size_y() / __builtin_amdgcn_workgroup_size_y()));
SQD_STUB_NUMBER(GridZ, (__builtin_amdgcn_grid_size_z() / __builtin_amdgcn_workgroup_size_z()));
#undef SQD_STUB_NUMBER

template <class X, class Y, class Z>
struct Coordinates {
  X x;
  Y y;
  Z z;
};
static const __device__ Coordinates<ThreadX, ThreadY, ThreadZ> threadIdx = {};
static const __device__ Coordinates<BlockX, BlockY, BlockZ> blockIdx = {};
static const __device__ Coordinates<SizeX, SizeY, SizeZ> blockDim = {};
static const __device__ Coordinates<GridX, GridY, GridZ> gridDim = {};

__device__ __forceinline__ void __syncthreads() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

template <class T>
__device__ __forceinline__ T atomicAdd(T* place, T value) {
  return __hip_atomic_fetch_add(place, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

__device__ __forceinline__ double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
__device__ __forceinline__ double fabs(double a) { return __builtin_fabs(a); }
__device__ __forceinline__ double sqrt(double a) { return __builtin_sqrt(a); }
__device__ __forceinline__ int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
__device__ __forceinline__ double __ldg(const double* place) { return *place; }
template <class T>
__device__ __forceinline__ T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
__device__ __forceinline__ T max(T a, T b) {
  return a < b ? b : a;
}
