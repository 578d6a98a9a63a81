"""The one place that imports TensorFlow and Keras: quiet, on one backend, and never beside PyTorch.

Both bring their own copies of oneDNN, OpenMP and protocol buffers; one process with both is slow at best.
"""

from __future__ import annotations

import contextlib
import os
import sys

if "torch" in sys.modules:
    raise RuntimeError("TensorFlow was about to be imported beside PyTorch; this is a bug in edgeopt or in a plugin")

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # information and warnings of its C++ part; errors still show

from absl import logging as absl_logging

from edgeopt.plugins import without_packages

# for data frames, plots, estimators and a converter of JAX's programs: half of the time that the import takes
with without_packages("IPython", "jax", "matplotlib", "pandas", "scipy", "sklearn"):
    import keras
    import tensorflow as tf

absl_logging.set_verbosity(absl_logging.ERROR)
tf.get_logger().setLevel("ERROR")

with contextlib.suppress(RuntimeError):  # whoever used TensorFlow before has chosen already
    # edgeopt sets it for its workers; OpenMP also allows a list, as in "4,2", of which the first is the outer loop's
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads = int(first) if first.isdigit() else 0
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)

__all__ = ["keras", "tf"]
