"""Changes to weights and biases that give back accuracy after rounding, without training."""
