"""ExecuTorch's backends beside XNNPACK, as far as the installed wheel carries their compilers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgeopt.plugins import ExportError, first_line
from edgeopt_executorch.options import DEFAULT_CHIP, Chip

if TYPE_CHECKING:
    from executorch.exir.backend.partitioner import Partitioner
    from torch.export import ExportedProgram
    from torch.fx import Node

XNNPACK = "xnnpack"
QNN = "qnn"


def partitioner_of(backend: str, chip: Chip = DEFAULT_CHIP) -> Partitioner:
    """What chooses the nodes that `backend` takes; `chip` is for Qualcomm's.

    Raises `ExportError` when the backend's compiler is not installed or refuses to start.
    """
    try:
        return _qnn(chip) if backend == QNN else _PARTITIONERS[backend]()
    except (ImportError, OSError, RuntimeError, KeyError) as error:  # a missing compiler shows in many ways
        raise ExportError(
            f"the compiler of ExecuTorch's backend {backend!r} is missing: {first_line(error)}", hint=_HINTS[backend]
        ) from error


def _xnnpack() -> Partitioner:
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.node_configs import MaxDimConfig
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    class Maximum(MaxDimConfig):  # type: ignore[misc]  # ExecuTorch ships no types
        """Takes a maximum over height or width only, its dimension kept.

        XNNPACK's own configuration takes one over any dimension, and for all others the lowering then fails.
        """

        def check_constraints(self, node: Node, program: ExportedProgram) -> bool:
            _source, dim, *keep = node.args
            return dim in (2, 3) and any(keep) and super().check_constraints(node, program)

    return XnnpackPartitioner([Maximum if each is MaxDimConfig else each for each in ALL_PARTITIONER_CONFIGS])


def _coreml() -> Partitioner:
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    logging.getLogger("coremltools").setLevel(logging.ERROR)  # it tells of every operator that it removes
    return CoreMLPartitioner()


def _vulkan() -> Partitioner:
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    return VulkanPartitioner()


def _qnn(chip: Chip) -> Partitioner:
    if "QNN_SDK_ROOT" not in os.environ:  # ExecuTorch would then download an SDK, which nobody asked for
        raise OSError("QNN_SDK_ROOT is not set")
    from executorch.backends.qualcomm.partition.qnn_partitioner import QnnPartitioner
    from executorch.backends.qualcomm.serialization.qc_schema import QcomChipset
    from executorch.backends.qualcomm.utils import utils

    options = utils.generate_htp_compiler_spec(use_fp16=True)
    return QnnPartitioner(utils.generate_qnn_executorch_compiler_spec(QcomChipset[chip], options))


_PARTITIONERS: Mapping[str, Callable[[], Partitioner]] = {
    XNNPACK: _xnnpack,
    "coreml": _coreml,
    "vulkan": _vulkan,
}
_HINTS: Mapping[str, str] = {
    XNNPACK: "pip install 'edgeopt[executorch]'",
    "coreml": "pip install coremltools",
    "vulkan": "take a wheel of ExecuTorch that carries the Vulkan backend",
    "qnn": "install Qualcomm's AI Engine Direct SDK and set QNN_SDK_ROOT; see ExecuTorch's page on the Qualcomm "
    "backend",
}
