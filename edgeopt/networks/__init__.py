"""What plugins need to work on networks: capture, layers, bits, copies, heads, checkpoints, and states on disk."""
