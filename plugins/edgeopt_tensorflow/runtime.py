"""The one place that imports TensorFlow and Keras: quiet, on one backend, and never beside PyTorch.

Both bring their own copies of oneDNN, OpenMP and protocol buffers; one process with both is slow at best.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

if "torch" in sys.modules:
    raise RuntimeError("TensorFlow was about to be imported beside PyTorch; this is a bug in edgeopt or in a plugin")

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # information and warnings of its C++ part; errors still show

from absl import logging as absl_logging

from edgeopt.plugins import without_packages

#: For data frames, plots, estimators and a converter of JAX's programs: half of the time that the import takes.
_IN_PASSING = ("IPython", "jax", "matplotlib", "pandas", "scipy", "sklearn")

with without_packages(*_IN_PASSING):
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

__all__ = ["import_keras_2", "keras", "tf"]


def import_keras_2() -> Any:
    """tf-keras, for files of Keras 2 and networks that onnx2tf builds.

    Raises `ImportError` where it is not installed: it is in the extra of TensorFlow.
    """
    with without_packages(*_IN_PASSING):
        import tf_keras  # heavy
    return tf_keras
