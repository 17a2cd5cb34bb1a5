"""Plain twins of the fast kernels, which tests compare them with."""
