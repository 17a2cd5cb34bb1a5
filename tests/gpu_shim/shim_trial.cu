// Kernels that try out the device layer.

extern "C" __global__ void write_numbers(const double factor, const Index n, const int* order, double* out) {
    const Index k = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (k < n) out[order[k]] = factor * (double)k;
}

// Sums of consecutive stretches of blockDim.x numbers, by a tree in shared memory.
extern "C" __global__ void __launch_bounds__(256) sum_blocks(const double* values, const Index n, double* out) {
    SHARED_DOUBLES(part);
    const Index k = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    part[threadIdx.x] = k < n ? values[k] : 0.0;
    __syncthreads();
    for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = part[0];
}

// Wrong on purpose: reads what other threads write without a barrier.
extern "C" __global__ void race(double* out) {
    SHARED_DOUBLES(part);
    part[threadIdx.x] = 1.0;
    out[(Index)blockIdx.x * blockDim.x + threadIdx.x] = part[blockDim.x - 1 - threadIdx.x];
}

// Wrong on purpose: a barrier that half of the threads reach.
extern "C" __global__ void divergent_barrier(double* out) {
    if (threadIdx.x % 2 == 0) __syncthreads();
    out[threadIdx.x] = 0.0;
}

// Wrong on purpose: one element too far.
extern "C" __global__ void overrun(double* out, const Index n) { out[n] = 1.0; }

// Wrong on purpose: all blocks write the same element.
extern "C" __global__ void same_element(double* out) {
    if (threadIdx.x == 0) out[0] = 1.0;
}

// Wrong on purpose: no barrier between the reading of one turn and the writing of the next.
extern "C" __global__ void early_writing(double* out) {
    SHARED_DOUBLES(part);
    double total = 0.0;
    for (int turn = 0; turn < 3; ++turn) {
        part[threadIdx.x] = 1.0;
        __syncthreads();
        total += part[blockDim.x - 1 - threadIdx.x];
    }
    out[(Index)blockIdx.x * blockDim.x + threadIdx.x] = total;
}
