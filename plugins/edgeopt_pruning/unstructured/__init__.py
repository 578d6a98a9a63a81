"""The pass `prune-unstructured` and the probe `sparsity`, which set single weights to zero."""
