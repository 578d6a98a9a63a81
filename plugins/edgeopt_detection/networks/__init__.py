"""Torchvision's one-stage detectors as networks that end at raw heads, with what turns these into boxes."""
