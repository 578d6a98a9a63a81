"""PyTorch's own program files for edgeopt: a reader of `.pt2`."""
