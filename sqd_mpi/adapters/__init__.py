"""Clients of the solver in other programs' terms; each module is the only door to its program."""
