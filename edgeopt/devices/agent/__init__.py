"""What works on the device. It imports the standard library, NumPy and a file's runtime, and goes there as one file."""
