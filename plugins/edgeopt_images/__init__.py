"""Image data sets that need no network: handwritten digits, folders of files, and files that lists name."""
