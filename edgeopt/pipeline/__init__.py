"""A run: its stages, the processes that do them, and their results."""
