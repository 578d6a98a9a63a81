"""Bugs of a plugin's own functions, told as its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from edgeopt.arrays import as_outputs
from edgeopt.errors import EdgeoptError, PluginBugError
from edgeopt.plugins.predictor import Predictor, close_predictor
from edgeopt.types import RawDataset
from edgeopt.workers.machine_faults import machine_fault

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Outputs, Pixels


class Named(Protocol):
    """A plugin's declaration, as far as a message names it."""

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...


@contextmanager
def blamed(plugin: Named, call: str) -> Iterator[None]:
    """Within, a bug of a plugin's own function becomes a `PluginBugError` that names the plugin; errors that edgeopt
    raises on purpose are left as they are, and those of the machine are told as such.
    """
    try:
        yield
    except (EdgeoptError, OSError):  # of files, which the message names
        raise
    except Exception as error:
        if fault := machine_fault(error):
            raise fault from error
        raise PluginBugError(f"{call} of {plugin.kind} {plugin.name!r}: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class BlamedLoad:
    """Opens a data set, and names its plugin in a bug of `load`.

    It can be pickled wherever `load` and `options` can, for the processes that read images.
    """

    name: str
    load: Callable[[Any], RawDataset]
    options: Any
    kind: ClassVar[str] = "dataset"

    def __call__(self) -> RawDataset:
        with blamed(self, "load"):
            return self.load(self.options)


@dataclass(frozen=True)
class BlamedPredictor:
    """An opened file whose bugs name the exporter that opened it. Not for timing: it takes a little time itself."""

    exporter: Named
    predictor: Predictor

    def predict(self, batch: NDArray[np.float32] | Pixels) -> Outputs:
        """What the file answers, with real numbers as float32."""
        with blamed(self.exporter, "predict"):
            return as_outputs(self.predictor.predict(batch))

    def close(self) -> None:
        """Frees what the open file holds."""
        close_predictor(self.predictor)
