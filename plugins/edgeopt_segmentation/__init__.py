"""Segmentation: a class for each place of an image."""
