"""torchvision for edgeopt: classification models and picture data sets."""
