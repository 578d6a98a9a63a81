"""Folders of TensorFlow Datasets: what lies in them, and images out of their records. TensorFlow itself is not used."""
