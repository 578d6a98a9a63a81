"""A run in other people's trackers: TensorBoard, MLflow, Weights & Biases, as `[trainer] loggers` names them."""
