"""The formulas beside those of systems in wide use, which run here as installed; see ``make test-peers``."""
