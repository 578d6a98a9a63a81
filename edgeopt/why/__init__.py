"""Where a file went wrong: `edgeopt why`, layer by layer, in the file's own runtime."""
