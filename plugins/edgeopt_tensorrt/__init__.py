"""TensorRT for edgeopt: its numerics, a bundle that builds on the device, and engines of TensorRT for RTX."""
