"""Examples: servers to read, run and copy from."""
