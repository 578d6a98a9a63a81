"""Declares the exporter. Every `edgeopt` command reads this module, so what is heavy is imported in its functions."""

import json
from dataclasses import asdict

import edgeopt
from edgeopt.export.predictor import input_of, outputs_of
from edgeopt.export.refusals import OperatorPlace, unsupported
from edgeopt.plugins import ExporterOptions, ExporterPlugin, ExportResult


def export(state, _options, context):
    """Writes the constants by their names, and the operators in order as JSON."""
    import numpy as np

    from edgeopt_example_runtime.runtime import OPERATORS

    program = state.program.run_decompositions({})  # nothing is decomposed, but what works in place does no more
    signature = program.graph_signature
    tensors = {**program.state_dict, **program.constants}
    values = {f"@{spec.arg.name}": tensors[spec.target] for spec in signature.input_specs if spec.target}
    steps = []
    for node in (each for each in program.graph.nodes if each.op == "call_function" and each.users):
        name = node.target.__name__
        if name.startswith("quantize_per_channel"):  # of a weight, whose integers are stored and not its floats
            values[f"@{node}"] = node.target(*(values.get(f"@{each}", each) for each in node.args))
        elif name in OPERATORS:
            steps.append([node, name, [*node.args, *node.kwargs.values()]])
        else:
            modules = [path for path, _kind in (node.meta.get("nn_module_stack") or {}).values()]
            place = OperatorPlace(str(node.target), max(modules, key=len, default=""))
            raise unsupported("The example runtime", [place], "it has no such operator")
    result = ExportResult(input_of(state, "batch"), outputs_of(state, "batch"))
    infos = [asdict(info) for info in (result.input, *result.outputs)]
    ends = [f"@{name}" for name in (*signature.user_inputs, *signature.user_outputs)]
    graph = json.dumps([ends[0], ends[1:], steps, infos], default=_told)
    read = {name: value.numpy(force=True) for name, value in values.items() if f'"{name}"' in graph}
    with context.path.open("wb") as file:
        np.savez(file, graph=graph, **read)
    return result


def _told(value):
    """What is no JSON: a value that another operator computes as "@name", a type of torch by its name."""
    return f"@{value.name}" if hasattr(value, "name") else str(value).removeprefix("torch.")


def open_file(path, _threads):
    """Opens a file; NumPy's threads are settled when it is imported."""
    from edgeopt_example_runtime.runtime import Network

    return Network(path)


@edgeopt.hookimpl
def edgeopt_exporters():
    """The exporters of this package."""
    yield ExporterPlugin(
        "example-numpy",
        "A network that NumPy runs, operator by operator.",
        ExporterOptions,
        export=export,
        open=open_file,
        runtime="numpy",
        suffix=".npnet",
        runtime_modules=("edgeopt_example_runtime.runtime",),
    )
