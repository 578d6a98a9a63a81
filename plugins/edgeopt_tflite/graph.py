"""A `.tflite` file as a graph that can be read and edited.

The format is a flatbuffer:
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

IDENTIFIER = b"TFL3"
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "FULLY_CONNECTED", "BATCH_MATMUL")
"""Operators that multiply by weights."""
_PRODUCTS = ("FULLY_CONNECTED", "BATCH_MATMUL")  # perhaps of two activations
QUANTIZED = (schema.TensorType.INT8, schema.TensorType.UINT8)

_KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
_LAST_SHORT_CODE = 127  # PLACEHOLDER_FOR_GREATER_OP_CODES: what the old, one-byte field says of newer operators
_LEFT_OUT = -1  # the index of an operand that an operator goes without
_NOT_OUTSIDE = 1  # a constant's offset is 0 or 1 when its data stands in the flatbuffer; larger ones point behind it
_ALIGNMENT = 16  # the schema's `force_align` of constants, which kernels read with vector loads


class _Buffer(schema.BufferT):  # type: ignore[misc]  # generated code has no types
    """A constant. The generated code writes it without the alignment that the schema demands."""

    def __init__(self, data: NDArray[np.uint8] | None = None) -> None:
        super().__init__()
        self.data = data

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 - overrides generated code
        if self.data is None or not len(self.data):
            schema.BufferStart(builder)
        else:
            content = np.ascontiguousarray(self.data, np.uint8)
            builder.StartVector(1, len(content), _ALIGNMENT)
            head = builder.Head() - len(content)
            builder.head = head
            builder.Bytes[head : head + len(content)] = content.tobytes()
            data = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, data)
        end: int = schema.BufferEnd(builder)
        return end


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # has no types
    """Writes equal arrays once: the zero points of channels alone, nearly all 0, are a tenth of an int8 detector.

    A flatbuffer refers to an array by where it stands, and nothing in the format asks for each to be referred to once.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802 - overrides the library's
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def packed_int4(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Integers from -8 to 7, two to a byte, the first in the lower half; an odd count leaves half a byte empty."""
    halves = (values.ravel().astype(np.int8) & 0xF).astype(np.uint8)
    halves = np.pad(halves, (0, len(halves) % 2))
    content: NDArray[np.uint8] = halves[0::2] | (halves[1::2] << np.uint8(4))
    return content


def unpacked(content: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """The first `count` integers that `packed_int4` made into bytes."""
    halves = np.stack([content & 0xF, content >> 4], axis=1).ravel()[:count].astype(np.int8)
    integers: NDArray[np.int8] = np.where(halves > 7, halves - 16, halves).astype(np.int8)
    return integers


@dataclass(frozen=True, eq=False)
class FileLayer:
    """A convolution or linear layer: the types of what enters it and of its weight, as that is stored."""

    operator: Any
    value: str
    weight: str


class Graph:
    """The main subgraph of a model, with its constants; tensors are named by their index."""

    def __init__(self, content: bytes) -> None:
        """Read a model from the bytes of its file."""
        self.model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
        self.main: Any = self.model.subgraphs[0]
        for buffer in self.model.buffers:
            if buffer.offset > _NOT_OUTSIDE:
                buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)

    # ---- reading ---------------------------------------------------------------------------------------------------

    @property
    def operators(self) -> list[Any]:
        """The operators, in the order of execution."""
        operators: list[Any] = self.main.operators
        return operators

    @operators.setter
    def operators(self, operators: Iterable[Any]) -> None:
        self.main.operators = list(operators)

    def kind(self, operator: Any) -> str:
        """The name of an operator's kind, such as `CONV_2D`."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        name: str = _KINDS[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return name

    def kinds(self) -> Counter[str]:
        """How many operators there are of each kind."""
        return Counter(map(self.kind, self.operators))

    def layers(self) -> Iterator[FileLayer]:
        """The layers with a weight, in the order of execution; a product of two activations is none."""
        producers = self.producers()
        for operator in self.operators:
            kind = self.kind(operator)
            if kind not in WEIGHTED:
                continue
            value = int(operator.inputs[2 if kind == "TRANSPOSE_CONV" else 0])
            weight = int(operator.inputs[1])
            source = producers.get(weight)
            if source is not None and self.kind(source) == "DEQUANTIZE":
                weight = int(source.inputs[0])
            if kind not in _PRODUCTS or self.constant(weight) is not None:
                yield FileLayer(operator, self.dtype(value), self.dtype(weight))

    def dtype(self, tensor: int) -> str:
        """The type of a tensor's elements, such as `float32`; empty for an operand that is left out."""
        return _TYPES[self.main.tensors[tensor].type] if tensor >= 0 else ""

    def name(self, tensor: int) -> str:
        """The name of a tensor, empty where it has none."""
        return (self.main.tensors[tensor].name or b"").decode()

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The sizes of a tensor."""
        sizes = self.main.tensors[tensor].shape
        return () if sizes is None else tuple(map(int, sizes))

    def quantization(self, tensor: int) -> tuple[float, int] | None:
        """Scale and zero point of a tensor that has one of each."""
        parameters = self.main.tensors[tensor].quantization
        if parameters is None or parameters.scale is None or len(parameters.scale) != 1:
            return None
        return float(parameters.scale[0]), int(parameters.zeroPoint[0])

    def constant(self, tensor: int) -> NDArray[Any] | None:
        """The value of a constant as a flat array, None for what is computed; integers of four bits come as int8."""
        info = self.main.tensors[tensor]
        data = self.model.buffers[info.buffer].data
        if data is None or not len(data):
            return None
        content = np.asarray(data, np.uint8)
        if self.dtype(tensor) == "int4":
            return unpacked(content, int(np.prod(self.shape(tensor))))
        return content.view(self.dtype(tensor))

    def producers(self) -> dict[int, Any]:
        """The operator that computes each tensor."""
        return {int(tensor): operator for operator in self.operators for tensor in operator.outputs}

    def consumers(self) -> dict[int, list[Any]]:
        """The operators that read each tensor."""
        readers: dict[int, list[Any]] = {}
        for operator in self.operators:
            for tensor in operator.inputs:
                readers.setdefault(int(tensor), []).append(operator)
        return readers

    # ---- editing ---------------------------------------------------------------------------------------------------

    def add_tensor(
        self, shape: Sequence[int], dtype: str, quantization: tuple[float, int] | None = None, like: int | None = None
    ) -> int:
        """A new tensor that some operator will compute, named after `like` until the file is written."""
        tensor = schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = getattr(schema.TensorType, dtype.upper())
        tensor.name = b"" if like is None else self.main.tensors[like].name
        tensor.hasRank = True
        tensor.buffer = 0  # the empty one, by convention
        if quantization:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array(quantization[:1], np.float32)
            tensor.quantization.zeroPoint = np.array(quantization[1:], np.int64)
        self.main.tensors.append(tensor)
        return len(self.main.tensors) - 1

    def set_constant(self, tensor: int, values: NDArray[Any], dtype: str) -> None:
        """Gives a constant another value, and a type; "int4" takes integers from -8 to 7."""
        content = packed_int4(values) if dtype == "int4" else np.ascontiguousarray(values).view(np.uint8)
        self.model.buffers.append(_Buffer(content))  # another tensor may share the old one
        self.main.tensors[tensor].buffer = len(self.model.buffers) - 1
        self.main.tensors[tensor].type = getattr(schema.TensorType, dtype.upper())

    def add_constant(self, values: NDArray[Any]) -> int:
        """A new constant of the values' type and shape."""
        tensor = self.add_tensor(values.shape, values.dtype.name)
        self.set_constant(tensor, values.ravel(), values.dtype.name)
        return tensor

    def require_version(self, operator: Any, version: int) -> None:
        """Lets an operator be of this version of its kind, or of a later one that it is of already."""
        operator.opcodeIndex = self._code(getattr(schema.BuiltinOperator, self.kind(operator)), version)

    def operator(self, kind: str, inputs: Sequence[int], outputs: Sequence[int], *, version: int = 1) -> Any:
        """A new operator without options, not yet in the graph."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(getattr(schema.BuiltinOperator, kind), version)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        return operator

    def custom(self, name: str, options: bytes, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        """A new operator that runtimes know by its name alone, not yet in the graph; its options are a flexbuffer."""
        code = schema.OperatorCodeT()
        code.builtinCode = schema.BuiltinOperator.CUSTOM
        code.deprecatedBuiltinCode, code.customCode, code.version = code.builtinCode, name.encode(), 1
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        operator.customOptions = np.frombuffer(options, np.uint8)
        return operator

    def quantize(self, source: int, target: int) -> Any:
        """The operator that makes quantized values of floats, or of values of another quantization."""
        return self.operator("QUANTIZE", [source], [target], version=2 if self.dtype(target) == "int16" else 1)

    def dequantize(self, source: int, target: int) -> Any:
        """The operator that makes floats of quantized values."""
        version = 3 if self.dtype(source) == "int16" else 2  # the first that take int16, and int8
        return self.operator("DEQUANTIZE", [source], [target], version=version)

    def set_metadata(self, name: str, content: bytes) -> None:
        """Keeps bytes under a name in the model."""
        entry = schema.MetadataT()
        entry.name, entry.buffer = name.encode(), len(self.model.buffers)
        self.model.buffers.append(_Buffer(np.frombuffer(content, np.uint8)))
        self.model.metadata = [*(self.model.metadata or []), entry]

    def metadata(self, name: str) -> bytes | None:
        """What was kept under a name."""
        for entry in self.model.metadata or []:
            if entry.name == name.encode():
                return bytes(self.model.buffers[entry.buffer].data)
        return None

    def _code(self, builtin: int, version: int) -> int:
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin and code.version >= version:
                return index
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, _LAST_SHORT_CODE)
        code.version = version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    # ---- writing ---------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The bytes of the model's file."""
        self.model.buffers = [_Buffer(buffer.data) for buffer in self.model.buffers]
        builder = _SharingBuilder(1 << 20)
        builder.Finish(self.model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def compact(self, input_name: str, output_names: Sequence[str]) -> None:
        """Drops what nothing reads, keeps equal constants once, and gives short names.

        The converter names a tensor after the Python stack that it comes from. These names are a tenth of a small file,
        and differ for the same program captured elsewhere.
        """
        self.model.metadata = [
            entry for entry in self.model.metadata or [] if entry.name in (b"min_runtime_version", b"TFLITE_METADATA")
        ]
        self.model.description = None
        codes = sorted({operator.opcodeIndex for graph in self.model.subgraphs for operator in graph.operators})
        self.model.operatorCodes = [self.model.operatorCodes[code] for code in codes]
        for graph in self.model.subgraphs:
            for operator in graph.operators:
                operator.opcodeIndex = codes.index(operator.opcodeIndex)
            self._drop_unread_tensors(graph)
        self._merge_constants()
        self._name(input_name, output_names)

    def _drop_unread_tensors(self, graph: Any) -> None:
        places = [(graph, "inputs"), (graph, "outputs")]
        places += [
            (operator, side)
            for operator in graph.operators
            for side in ("inputs", "outputs", "intermediates")
            if getattr(operator, side) is not None
        ]
        used = {int(tensor) for owner, side in places for tensor in getattr(owner, side)} - {_LEFT_OUT}
        moved = {old: new for new, old in enumerate(sorted(used))} | {_LEFT_OUT: _LEFT_OUT}
        graph.tensors = [graph.tensors[tensor] for tensor in sorted(used)]
        for owner, side in places:
            setattr(owner, side, np.array([moved[int(tensor)] for tensor in getattr(owner, side)], np.int32))
        for signature in self.model.signatureDefs or []:
            if self.model.subgraphs[signature.subgraphIndex] is graph:
                for entry in [*signature.inputs, *signature.outputs]:
                    entry.tensorIndex = moved[entry.tensorIndex]

    def _merge_constants(self) -> None:
        buffers: list[Any] = [schema.BufferT()]
        places: dict[bytes, int] = {b"": 0}

        def place(index: int) -> int:
            data = self.model.buffers[index].data
            content = b"" if data is None else bytes(data)
            if content not in places:
                places[content] = len(buffers)
                buffers.append(self.model.buffers[index])
            return places[content]

        for graph in self.model.subgraphs:
            for tensor in graph.tensors:
                tensor.buffer = place(tensor.buffer)
        for entry in self.model.metadata:
            entry.buffer = place(entry.buffer)
        self.model.buffers = buffers

    def _name(self, input_name: str, output_names: Sequence[str]) -> None:
        for graph in self.model.subgraphs:
            for index, tensor in enumerate(graph.tensors):
                tensor.name = f"constant_{index}".encode()
            for number, operator in enumerate(graph.operators):
                for place, tensor in enumerate(operator.outputs):
                    suffix = f"_{place}" if place else ""
                    graph.tensors[tensor].name = f"{self.kind(operator).lower()}_{number}{suffix}".encode()
        (given,), returned = (
            self.main.inputs,
            {int(tensor): name for tensor, name in zip(self.main.outputs, output_names, strict=True)},
        )
        self.main.tensors[given].name = input_name.encode()
        for tensor, name in returned.items():
            self.main.tensors[tensor].name = name.encode()
        for signature in self.model.signatureDefs or []:
            signature.inputs[0].name = input_name.encode()
            for entry in signature.outputs:
                entry.name = returned[int(entry.tensorIndex)].encode()

    def replace_input(self, tensor: int) -> None:
        """Makes `tensor` the input of the graph."""
        self.main.inputs = np.array([tensor], np.int32)
        for signature in self.model.signatureDefs or []:
            signature.inputs[0].tensorIndex = tensor

    def replace_output(self, former: int, tensor: int) -> None:
        """Makes `tensor` an output of the graph in place of a former one."""
        self.main.outputs = np.array([tensor if each == former else each for each in self.main.outputs], np.int32)
        for signature in self.model.signatureDefs or []:
            for entry in signature.outputs:
                if entry.tensorIndex == former:
                    entry.tensorIndex = tensor

    def set_outputs(self, tensors: Sequence[int]) -> None:
        """Makes these the outputs of the graph, in their order, and of its signature."""
        self.main.outputs = np.array(tensors, np.int32)
        for signature in self.model.signatureDefs or []:
            signature.outputs = []
            for place, tensor in enumerate(tensors):
                entry = schema.TensorMapT()
                entry.name, entry.tensorIndex = f"output_{place}".encode(), tensor
                signature.outputs.append(entry)

    def order_outputs(self) -> None:
        """Puts the outputs into the order of a converter's names, "output_0", "output_1" and so on, in its signature;
        a file without such names stays as it is.
        """
        for signature in self.model.signatureDefs or []:
            places = [entry.name.decode().rpartition("_")[2] for entry in signature.outputs]
            if len(places) == len(self.main.outputs) > 1 and all(place.isdecimal() for place in places):
                signature.outputs.sort(key=lambda entry: int(entry.name.decode().rpartition("_")[2]))
                self.main.outputs = np.array([entry.tensorIndex for entry in signature.outputs], np.int32)
