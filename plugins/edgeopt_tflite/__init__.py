"""TensorFlow Lite for edgeopt: exporter of PyTorch programs, and a predictor on LiteRT."""
