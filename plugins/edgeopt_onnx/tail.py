"""Last operators of a file that a task has given, put behind a converted program."""

from __future__ import annotations

import onnx

from edgeopt.export.predictor import layout_of
from edgeopt.plugins import OnnxTail, TensorInfo


def add_tail(proto: onnx.ModelProto, tail: OnnxTail) -> None:
    """Puts a tail behind what a model returns, in place; its outputs are the model's then."""
    model = onnx.ModelProto.FromString(tail.model)
    graph = proto.graph
    returned = {own.name: given.name for own, given in zip(graph.output, model.graph.input, strict=True)}
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = returned.get(name, name)
    batch = onnx.TensorShapeProto.Dimension()
    batch.CopyFrom(graph.output[0].type.tensor_type.shape.dim[0])
    del graph.output[:]
    graph.node.extend(model.graph.node)
    graph.initializer.extend(model.graph.initializer)
    graph.output.extend(model.graph.output)
    known = {each.domain for each in proto.opset_import}
    proto.opset_import.extend(each for each in model.opset_import if each.domain not in known)
    for output in graph.output:
        output.type.tensor_type.shape.dim[0].CopyFrom(batch)


def outputs_of_tail(tail: OnnxTail, batch: int | str) -> tuple[TensorInfo, ...]:
    """What a file with a tail gives."""
    infos = []
    for output in onnx.ModelProto.FromString(tail.model).graph.output:
        kind = output.type.tensor_type
        shape = (batch, *(each.dim_value for each in kind.shape.dim[1:]))
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        infos.append(TensorInfo(output.name, dtype, shape, layout_of(len(shape))))
    return tuple(infos)
