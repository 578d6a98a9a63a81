"""OpenVINO for edgeopt: exporter, and a predictor on its CPU plugin."""
