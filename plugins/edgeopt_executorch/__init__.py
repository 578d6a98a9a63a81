"""ExecuTorch for edgeopt: the XNNPACK quantizer, exporter and predictor."""
