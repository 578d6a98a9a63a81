"""ONNX for edgeopt: exporter, and a predictor on ONNX Runtime."""
