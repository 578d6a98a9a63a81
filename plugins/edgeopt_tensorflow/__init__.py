"""TensorFlow and Keras for edgeopt: models, fine-tuning, exporters and readers.

TensorFlow never shares a process with PyTorch.
"""
