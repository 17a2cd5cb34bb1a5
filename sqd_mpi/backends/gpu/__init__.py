"""The GPU backend: one source of CUDA and HIP kernels, a small interface to the device, and the blocks made of both."""
