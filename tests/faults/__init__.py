"""Faults put into the product on purpose, and what must be true after each of them.

``make test`` runs the short form, ``make test-faults`` the full one; docs/faults.md keeps its counts.
"""
