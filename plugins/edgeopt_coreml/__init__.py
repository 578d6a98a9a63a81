"""Core ML for edgeopt: exporter of `.mlpackage`, and a predictor for macOS."""
