"""This machine, and boards behind ssh, as devices on which files answer and are timed."""
