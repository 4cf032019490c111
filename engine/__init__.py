"""The learning: models, sampling, rewards, algorithms and the async engine that runs them.

Imports ``sessions`` and nothing else of the house; never textual.
"""
