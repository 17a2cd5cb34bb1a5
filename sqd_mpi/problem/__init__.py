"""What is diagonalised: integrals, strings, symmetry, samples; no MPI, no HDF5."""
