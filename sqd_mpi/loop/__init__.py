"""What calls the solver many times."""
