"""Spoken words as images: folders of wav files, and digits spoken by a synthesizer."""
