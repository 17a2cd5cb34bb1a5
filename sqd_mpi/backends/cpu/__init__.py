"""Kernels of the CPU, each beside its price."""
