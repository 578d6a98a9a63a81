"""A runtime for edgeopt: networks that NumPy runs."""
