"""The front door: the command line, settings, starting and finding engines."""

__version__ = "0.1.0"
