"""Networks of timm (PyTorch Image Models) for edgeopt."""
