"""Selected configuration interaction in a product of alpha and beta bit-strings, on any number of MPI ranks."""

from __future__ import annotations

__version__ = "0.1.0"
