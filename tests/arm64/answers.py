"""Runs files on given inputs and keeps what they answer: `python answers.py JOB.json`.

Runs in either architecture's Python, so it needs numpy and the runtimes alone. The job is a list of `{"file",
"inputs", "answers"}`, three paths: inputs is a `.npy` of images just as the file takes them, (n, ...), and answers the
`.npy` of outputs that is written, (n, classes).
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def onnx(file: str) -> Callable[[Any], Any]:
    import onnxruntime  # only where a file needs it: imports are slow under emulation

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # no warnings of devices that are not there
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def tflite(file: str) -> Callable[[Any], Any]:
    from ai_edge_litert.interpreter import Interpreter  # as above

    interpreter = Interpreter(model_path=file, num_threads=1)
    interpreter.allocate_tensors()
    given, returned = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(batch: Any) -> Any:
        interpreter.set_tensor(given, batch)
        interpreter.invoke()
        return interpreter.get_tensor(returned)

    return run


def ncnn(file: str) -> Callable[[Any], Any]:
    import ncnn  # as above

    net = ncnn.Net()
    net.opt.num_threads = 1
    is_half = json.loads((Path(file).parent / "card.json").read_text())["precision"] == "float16"
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = is_half
    net.opt.use_bf16_storage = False
    if net.load_param(file) or net.load_model(str(Path(file).with_suffix(".bin"))):
        raise ValueError(f"ncnn cannot open {file}")
    (given,), (returned, *_) = net.input_names(), net.output_names()

    def run(batch: Any) -> Any:
        extractor = net.create_extractor()
        extractor.input(given, ncnn.Mat(batch[0]).clone())
        return np.array(extractor.extract(returned)[1])[None]

    return run


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text()):
        run = {".onnx": onnx, ".tflite": tflite, ".param": ncnn}[Path(each["file"]).suffix](each["file"])
        images = np.load(each["inputs"])
        np.save(each["answers"], np.concatenate([run(images[index : index + 1]) for index in range(len(images))]))
