"""Quantization with torchao: capture, prepare, train or calibrate, convert."""
