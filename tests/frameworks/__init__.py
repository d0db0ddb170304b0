"""The same server on each framework, and what must be the same about it."""
