"""Processes that do work for another one, and the store in which they leave their results."""
