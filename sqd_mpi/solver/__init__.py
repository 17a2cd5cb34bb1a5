"""One subspace, from strings to a result."""
