"""Who owns which element, where it lives and how it moves; the door to mpi4py."""
