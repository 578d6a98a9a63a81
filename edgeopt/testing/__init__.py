"""For authors of plugins: contracts that a plugin must keep, as test classes, and small values to test with.

```python
from edgeopt.testing import PassContract


class TestRoundWeights(PassContract):
    name = "round-weights"
    options = {"steps": 64}
```

pytest runs every test of the contract for the plugin of that name, which must be installed (or be in one of
`plugin_files`). What is special about a plugin is said by overriding a fixture: `data`, `state`, `context`.
`pip install 'edgeopt[testing]'` brings pytest. What a runtime cannot do is said by the attributes of its contract.
"""

from edgeopt.testing.contracts import PluginContract
from edgeopt.testing.dataset import DatasetContract
from edgeopt.testing.device import DeviceContract
from edgeopt.testing.exporter import ExporterContract
from edgeopt.testing.model import ModelContract
from edgeopt.testing.passes import PassContract
from edgeopt.testing.probe import ProbeContract
from edgeopt.testing.quantizer import QuantizerContract
from edgeopt.testing.reader import ReaderContract
from edgeopt.testing.task import TaskContract
from edgeopt.testing.values import (
    ArraySplit,
    pass_context,
    tiny_data,
    tiny_int8_program,
    tiny_model,
    tiny_program,
    tiny_two_outputs,
)

__all__ = [
    "ArraySplit",
    "DatasetContract",
    "DeviceContract",
    "ExporterContract",
    "ModelContract",
    "PassContract",
    "PluginContract",
    "ProbeContract",
    "QuantizerContract",
    "ReaderContract",
    "TaskContract",
    "pass_context",
    "tiny_data",
    "tiny_int8_program",
    "tiny_model",
    "tiny_program",
    "tiny_two_outputs",
]
