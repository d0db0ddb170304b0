"""A clinic's patient records, served to two agents."""
