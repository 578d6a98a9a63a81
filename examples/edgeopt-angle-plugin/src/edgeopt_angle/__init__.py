"""A task of one's own for edgeopt: the angle of what an image shows."""
