"""A clinic's patient records, served to three agents."""
