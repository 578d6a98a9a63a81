"""The passes `prune-structured` and `prune-search`, which remove whole channels."""
