"""What is measured of a file: its latency and memory, and its answers."""
