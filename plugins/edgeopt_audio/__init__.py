"""Spoken words as pictures: folders of wav files, and digits spoken by a synthesizer."""
