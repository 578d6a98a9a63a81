"""Parts of a captured graph: layers, layers that are called several times, BatchNorm, Dropout."""
