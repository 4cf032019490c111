"""The algorithms, one file each, each reading top to bottom as its paper."""
