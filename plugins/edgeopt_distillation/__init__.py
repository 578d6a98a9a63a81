"""Distillation: a trained teacher beside the labels, for `distill` and for every pass that trains."""
