"""An engine without a model, found before the real one when its folder leads ``PYTHONPATH``."""
