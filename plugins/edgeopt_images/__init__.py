"""Image data sets that need no network: handwritten digits, and folders of files."""
