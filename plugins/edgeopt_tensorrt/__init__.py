"""TensorRT for edgeopt: its numerics, a bundle that builds on the device, and ahead-of-time engines of TensorRT for RTX."""
