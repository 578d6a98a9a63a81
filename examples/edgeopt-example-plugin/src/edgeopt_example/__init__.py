"""A data set and a pass for edgeopt."""
