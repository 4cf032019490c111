"""What a session is: records, hyperparameters, store, checkpoints and the wire.

The ground floor of the house. It imports none of the other packages, and neither torch nor textual.
"""
