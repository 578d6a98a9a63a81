"""torchvision for edgeopt: classification models and image data sets."""
