"""Hugging Face data sets for edgeopt."""
