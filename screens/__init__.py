"""The Textual app: it shows a session and sends commands. It imports ``sessions`` only, and never torch."""
