"""What runs files on a phone of the tests: programs and an app that speak as the real ones do, with the real runtimes.

The phone has small scripts alone. They ask this process, which has the runtimes already, and print what it answers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from android import Android, wait_for
from ssh_server import free_port
from tiny_plugin import NpzPredictor

from edgeopt.plugins import Card, Preprocessing, TensorInfo

APP = "org.example.flowers"
PROPERTIES = {
    "ro.product.manufacturer": "Example",
    "ro.product.model": "Phone 7",
    "ro.soc.manufacturer": "Chips",
    "ro.soc.model": "C-1",
    "ro.product.cpu.abi": "x86_64",
    "ro.product.cpu.abilist": "x86_64,arm64-v8a",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
}
_ASK = f"""#!{sys.executable} -ISE
import json, os, socket, sys
desk = socket.socket(socket.AF_UNIX)
desk.connect({{address!r}})
question = [{{name!r}}, os.environ["PHONE"], os.getcwd(), os.getpid(), sys.argv[1:]]
desk.sendall(json.dumps(question).encode() + b"\\n")
told = json.loads(desk.makefile().readline())
sys.stdout.write(told["said"])
sys.exit(told["code"])
"""
_GETPROP = """#!/bin/sh
sed -n "s/^$1=//p" $PHONE/properties
"""
_PIDOF = """#!/bin/sh
[ -f $PHONE/at-work ]
"""
_DUMPSYS = """#!/bin/sh
case $1 in
package) echo "    versionName=1.0" ;;
*) echo "  Temperature{mValue=39.25, mType=0, mName=CPU0, mStatus=0}" ;;
esac
"""
_LOGCAT = """#!/bin/sh
for each; do case $each in --pid=*) cat $PHONE/log-${each#--pid=} ;; esac; done
"""


# ---- files


def linear_tflite(weight: Any, side: int) -> bytes:
    """A `.tflite` file of one linear layer: `weight`, float32 (3 * side * side, classes), on pixels (1, side, side, 3)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    inputs, classes = weight.shape
    held = (b"", weight.T.astype(np.float32).tobytes(), np.array([1, inputs], np.int32).tobytes())

    def made(kind: str, **values: Any) -> Any:
        value = getattr(schema, f"{kind}T")()
        for name, each in values.items():
            setattr(value, name, each)
        return value

    def tensor(name: str, shape: Sequence[int], buffer: int = 0, kind: int = schema.TensorType.FLOAT32) -> Any:
        return made("Tensor", name=name, shape=list(shape), type=kind, buffer=buffer)

    def operator(code: int, given: list[int], returned: int, options: str) -> Any:
        kind = getattr(schema.BuiltinOptions, options)
        own = {"opcodeIndex": code, "inputs": given, "outputs": [returned], "builtinOptionsType": kind}
        return made("Operator", **own, builtinOptions=made(options))

    codes = (schema.BuiltinOperator.RESHAPE, schema.BuiltinOperator.FULLY_CONNECTED)
    graph = made(
        "SubGraph",
        name="main",
        tensors=[
            tensor("image", (1, side, side, 3)),
            tensor("shape", (2,), 2, schema.TensorType.INT32),
            tensor("flat", (1, inputs)),
            tensor("weight", (classes, inputs), 1),
            tensor("logits", (1, classes)),
        ],
        inputs=[0],
        outputs=[4],
        operators=[
            operator(0, [0, 1], 2, "ReshapeOptions"),
            operator(1, [2, 3, -1], 4, "FullyConnectedOptions"),
        ],
    )
    model = made(
        "Model",
        version=3,
        description="linear",
        buffers=[made("Buffer", data=list(each) or None) for each in held],
        operatorCodes=[made("OperatorCode", builtinCode=code, deprecatedBuiltinCode=code, version=1) for code in codes],
        subgraphs=[graph],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def linear_card(side: int, classes: int) -> Card:
    """The card of such a file, which is fed with pixels as floats."""
    return Card(
        classes=tuple(f"class {index}" for index in range(classes)),
        preprocessing=Preprocessing(side, side, side, (0.0,) * 3, (1 / 255,) * 3).to_json(),
        runtime="LiteRT",
        precision="float32",
        role="baseline",
        recipe={},
        versions={},
        input=TensorInfo("image", "float32", (1, side, side, 3), "NHWC"),
        outputs=(TensorInfo("logits", "float32", (1, classes), "NC"),),
    )


# ---- the desk


class Furnished(Protocol):
    """A phone that takes commands."""

    root: Path
    properties: Mapping[str, str]

    def command(self, name: str, text: str) -> None: ...


@dataclass
class Desk:
    """Answers for the programs and the app of all phones."""

    app_dies: bool = False
    self_test_passed: bool = True
    installed: bool = True
    does_jobs: bool = True
    asked: list[tuple[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        desk = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                name, root, folder, process, arguments = json.loads(self.rfile.readline())
                desk.asked.append((name, arguments))
                code, said = _ANSWERS[name](desk, Call(Path(root), Path(folder), process, arguments))
                self.wfile.write(json.dumps({"code": code, "said": said}).encode() + b"\n")

        self.address = f"{tempfile.mkdtemp(prefix='desk-')}/desk"
        self._server = socketserver.ThreadingUnixStreamServer(self.address, Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def program(self, name: str) -> str:
        """A program that the phone runs."""
        return _ASK.format(address=self.address, name=name)

    def furnish(self, phone: Furnished) -> None:
        """Gives a phone the commands that Android has."""
        lines = (f"{name}={value}\n" for name, value in {**PROPERTIES, **phone.properties}.items())
        (phone.root / "properties").write_text("".join(lines))
        phone.command("getprop", _GETPROP)
        phone.command("logcat", _LOGCAT)
        phone.command("pidof", _PIDOF)
        phone.command("dumpsys", _DUMPSYS)
        for name in ("am", "pm"):
            phone.command(name, self.program(name))
        zone = phone.root / "sys/class/thermal/thermal_zone3"
        zone.mkdir(parents=True)
        (zone / "type").write_text("cpu-0-1\n")
        (zone / "temp").write_text("41500\n")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        Path(self.address).unlink(missing_ok=True)
        Path(self.address).parent.rmdir()


@dataclass(frozen=True)
class Call:
    root: Path
    folder: Path
    process: int
    arguments: list[str]

    @property
    def flags(self) -> dict[str, str]:
        """The flags of a program."""
        return {name.lstrip("-"): value for name, _, value in (each.partition("=") for each in self.arguments)}

    def below(self, path: str) -> Path:
        return self.folder / path


def _opened(path: Path, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def _called(interpreter: Any, values: Any) -> Any:
    given, returned = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(given["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(returned["index"])


def _timed(call: Callable[[], object], count: int) -> list[float]:
    """Seconds of each call."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


# ---- benchmark_model and run_model


def _statistics(times: list[float]) -> str:
    micros = [round(1e6 * each) for each in times]
    if not micros:
        return "count=0"
    if len(micros) == 1:
        return f"count=1 curr={micros[0]}"
    return (
        f"count={len(micros)} first={micros[0]} curr={micros[-1]} min={min(micros)} max={max(micros)} "
        f"avg={np.mean(micros):.6g} std={round(float(np.std(micros)))}"
    )


def benchmark_model(_: Desk, call: Call, *, of_litert: bool = False) -> tuple[int, str]:
    flags = call.flags
    said = ["STARTING!"]
    path = Path(flags["graph"])
    start = time.perf_counter()
    try:
        interpreter = _opened(path, int(flags["num_threads"]))
    except (ValueError, RuntimeError) as error:
        return 1, "\n".join((*said, f"ERROR: {error}", f"ERROR: Failed to load model {path}", "Benchmarking failed."))
    init_us = round(1e6 * (time.perf_counter() - start))
    given = interpreter.get_input_details()[0]
    values = np.zeros(given["shape"], given["dtype"])
    if of_litert:
        unknown = [each for each in call.arguments if each.startswith(("--input_layer", "--output_filepath"))]
        said += [f"WARN: Unconsumed cmdline flags: {' '.join(unknown)}"] if unknown else []
    elif "input_layer_value_files" in flags:
        name, _, source = flags["input_layer_value_files"].partition(":")
        assert name == flags["input_layer"]
        assert tuple(map(int, flags["input_layer_shape"].split(","))) == tuple(given["shape"])
        data = call.below(source).read_bytes()
        values = np.frombuffer(data, given["dtype"]).reshape(given["shape"])
    said += [f"INFO: Loaded model {path}", f"INFO: Initialized session in {init_us / 1e3}ms."]
    warmup = _timed(lambda: _called(interpreter, values), int(flags["warmup_runs"]))
    said.append(f"INFO: {_statistics(warmup)}\n")
    until = time.perf_counter() + float(flags["min_secs"])
    times = _timed(lambda: _called(interpreter, values), int(flags["num_runs"]))
    while time.perf_counter() < until:
        times += _timed(lambda: _called(interpreter, values), 1)
    said.append(f"INFO: {_statistics(times)}\n")
    first_us, average_us = round(1e6 * (warmup or times)[0]), 1e6 * sum(times) / len(times)
    if of_litert:
        said += [
            "INFO: [benchmark_litert_model.h:90] \n========== BENCHMARK RESULTS ==========",
            f"INFO: [benchmark_litert_model.h:94] Model initialization: {init_us / 1e3:.2f} ms",
            f"INFO: [benchmark_litert_model.h:96] Warmup (first):       {first_us / 1e3:.2f} ms",
            f"INFO: [benchmark_litert_model.h:100] Inference (avg):      {average_us / 1e3:.2f} ms ({len(times)} runs)",
            "INFO: [benchmark_litert_model.h:126] Overall footprint:    6.50 MB",
        ]
    else:
        warm = f"First inference: {first_us}, Warmup (avg): {first_us}"
        said += [
            f"INFO: Inference timings in us: Init: {init_us}, {warm}, Inference (avg): {average_us:.6g}",
            "INFO: Memory footprint delta from the start of the tool (MB): init=2.5 overall=6.5",
        ]
        if "output_filepath" in flags:
            call.below(flags["output_filepath"]).write_bytes(_called(interpreter, values).tobytes())
    return 0, "\n".join(said) + "\n"


def benchmark_model_of_litert(desk: Desk, call: Call) -> tuple[int, str]:
    return benchmark_model(desk, call, of_litert=True)


def run_model(_: Desk, call: Call) -> tuple[int, str]:
    flags = call.flags
    interpreter = _opened(Path(flags["graph"]), 1)
    given = interpreter.get_input_details()[0]
    values = np.zeros(given["shape"], given["dtype"])
    count = int(flags["iterations"])
    micros = [int(1e6 * each) for each in _timed(lambda: _called(interpreter, values), count)]
    where = "I0000 00:00:00.000000    1234 run_model.cc:233]"
    return 0, "\n".join(
        (
            "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
            f"{where} Run model for {count} times",
            f"{where} First run took {micros[0]} microseconds",
            f"{where} Slowest run took {max(micros)} microseconds",
            f"{where} Fastest run took {min(micros)} microseconds",
            f"{where} All runs took average {sum(micros) // count} microseconds",
            f"{where} Model run completed\n",
        )
    )


# ---- executor_runner


def executor_runner(
    _: Desk, call: Call, *, to_log: bool = False, single: bool = True, known: Sequence[str] = ()
) -> tuple[int, str]:
    """ExecuTorch's, as built for Linux; with `to_log`, as built for Android, whose messages go to the system's log."""
    from edgeopt_executorch.on_device import open_file

    flags = call.flags
    for name in flags:
        if known and name not in known:
            return 1, f"ERROR: unknown command line flag '{name}'\n"
    start = time.perf_counter()
    try:
        file = open_file(Path(flags["model_path"]), int(flags.get("cpu_threads", 1)))
    except ValueError as error:
        return 134, f"E 00:00:00.001 executorch:executor_runner.cpp:487] Loading of method forward failed: {error}\n"
    load_ms = 1e3 * (time.perf_counter() - start)
    told = file.method.method_meta().input_tensor_meta(0)
    size, dtype = tuple(told.sizes()), np.uint8 if told.dtype() == 0 else np.float32
    values = np.ones(size, dtype)
    if "inputs" in flags:
        values = np.fromfile(call.below(flags["inputs"]), dtype).reshape(size)
    count = int(flags.get("num_executions", 1))
    times_ms = [1e3 * each for each in _timed(lambda: file.predict(values), count)]
    lines = [f"Model loaded in {load_ms:.6f} ms."]
    lines += [f"Iteration {n + 1} of {count}: {each:.6f} ms" for n, each in enumerate(times_ms)] if single else []
    lines.append(f"Model executed successfully {count} time(s) in {sum(times_ms):.6f} ms.")
    if "output_file" in flags:
        call.below(f"{flags['output_file']}-0.bin").write_bytes(np.ascontiguousarray(file.predict(values)[0]).tobytes())
    if to_log:
        (call.root / f"log-{call.process}").write_text("\n".join(lines) + "\n")
        return 0, "OutputX 0: tensor(sizes=[1, 3], [...])\n"
    return 0, "\n".join(f"I 00:00:00.000 executorch:executor_runner.cpp:520] {line}" for line in lines) + "\n"


# ---- the app


def _am(desk: Desk, call: Call) -> tuple[int, str]:
    what, *rest = call.arguments
    if what == "force-stop":
        return 0, ""
    component = rest[rest.index("-n") + 1]
    said = f"Starting: Intent {{ cmp={component} }}\n"
    if not desk.does_jobs:
        return 1, f"{said}Error type 3\nError: Activity class {{{component}}} does not exist.\n"
    extras = {rest[place + 1]: rest[place + 2] for place, word in enumerate(rest) if word in ("--es", "--ei")}
    folder = call.root / "sdcard/Android/data" / APP / "files/bench" / extras["job"]
    (call.root / "at-work").touch()
    threading.Thread(target=_job, args=(desk, call.root, folder, extras), daemon=True).start()
    return 0, said


def _job(desk: Desk, root: Path, folder: Path, extras: Mapping[str, str]) -> None:
    try:
        if desk.app_dies:
            return
        try:
            result = _done(desk, folder, extras)
        except Exception as error:
            result = {"error": f"IllegalArgumentException: {error}"}
        pending = folder / "result.json.new"
        with suppress(OSError):  # its folder was taken away meanwhile
            pending.write_text(json.dumps({**result, "manufacturer": "Example"}))
            pending.rename(folder / "result.json")
    finally:
        (root / "at-work").unlink(missing_ok=True)


def _done(desk: Desk, folder: Path, extras: Mapping[str, str]) -> dict[str, Any]:
    card = json.loads((folder / "card.json").read_text())
    preprocessing = Preprocessing.from_json(card["preprocessing"])
    start = time.perf_counter()
    call = _app_file(folder / "model", int(extras["threads"]), last=card["input"]["layout"] == "NHWC")
    load_ms = 1e3 * (time.perf_counter() - start)
    side = preprocessing.image_size
    nothing = preprocessing.normalize(np.zeros((1, side, side, 3), np.uint8))
    (first,) = _timed(lambda: call(nothing), 1)
    images = 0
    if (folder / "pixels.bin").exists():
        pixels = np.fromfile(folder / "pixels.bin", np.uint8).reshape(-1, side, side, 3)
        images = len(pixels)
        logits = np.concatenate([call(preprocessing.normalize(pixels[n : n + 1])) for n in range(images)])
        logits.astype("<f4").tofile(folder / "answers.bin")
    _timed(lambda: call(nothing), int(extras["warmup"]))
    times = _timed(lambda: call(nothing), int(extras["runs"]))
    return {
        "load_ms": load_ms,
        "first_ms": 1e3 * first,
        "times_ms": [1e3 * each for each in times],
        "threads": int(extras["threads"]),
        "images": images,
        "self_test_passed": desk.self_test_passed,
        "pixel_difference": 0 if desk.self_test_passed else 7,
        "logit_difference": 0.0 if desk.self_test_passed else 1.25,
    }


def _app_file(path: Path, threads: int, *, last: bool) -> Callable[[Any], Any]:
    if path.read_bytes()[:2] == b"PK":  # a file of the tiny exporter
        return NpzPredictor(path).predict
    interpreter = _opened(path, threads)
    return lambda values: _called(interpreter, values.transpose(0, 2, 3, 1) if last else values)


def _pm(desk: Desk, call: Call) -> tuple[int, str]:
    known = desk.installed and call.arguments == ["path", APP]
    return (0, f"package:/data/app/{APP}/base.apk\n") if known else (1, "")


_ANSWERS: Mapping[str, Callable[[Desk, Call], tuple[int, str]]] = {
    "am": _am,
    "pm": _pm,
    "benchmark_model": benchmark_model,
    "benchmark_model of LiteRT": benchmark_model_of_litert,
    "run_model": run_model,
    "executor_runner": executor_runner,
    "executor_runner on Android": lambda desk, call: executor_runner(desk, call, to_log=True),
    "executor_runner without single calls": lambda desk, call: executor_runner(desk, call, single=False),
    "executor_runner that is old": lambda desk, call: executor_runner(desk, call, known=("model_path",)),
}


# ---- phones


@contextmanager
def adb_server(home: Path) -> Iterator[None]:
    """A server of adb for these tests alone, which looks at no cable and at none of the user's keys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        for name in ("HOME", "ANDROID_SDK_HOME", "ANDROID_USER_HOME", "TMPDIR"):
            patch.setenv(name, str(home))
        for name in ("ANDROID_SERIAL", "ANDROID_VENDOR_KEYS", "ADB_SERVER_SOCKET"):
            patch.delenv(name, raising=False)
        for name in ("ADB_USB", "ADB_EMU", "ADB_MDNS"):
            patch.setenv(name, "0")
        subprocess.run(["adb", "start-server"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            subprocess.run(["adb", "kill-server"], check=True, capture_output=True)


def made_phone(desk: Desk, root: Path, **settings: Any) -> Iterator[Android]:
    """A phone that is switched off in the end."""
    root.mkdir()
    phone = Android(root, **settings)
    desk.furnish(phone)
    yield phone
    phone.stop()
    subprocess.run(["adb", "disconnect", phone.serial], check=False, capture_output=True)


ADBD = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeopt" / "adbd"
NO_ADBD = "there is no adbd, or no network for it alone: `make adb` as root, with ip and unshare"
HAS_ADBD = (
    ADBD.is_dir() and os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("unshare") is not None
)


@dataclass
class RealPhone:
    """The adbd of Debian as root's shell, with a server of adb, in a network that nobody else has."""

    root: Path
    properties: Mapping[str, str] = field(default_factory=dict)
    serial: str = "127.0.0.1:5999"

    def command(self, name: str, text: str) -> None:
        (self.root / "bin").mkdir(exist_ok=True)
        (self.root / "bin" / name).write_text(text)
        (self.root / "bin" / name).chmod(0o755)

    @contextmanager
    def on(self) -> Iterator[None]:
        """While it is switched on, `adb` asks its server by a socket in its folder."""
        for name in ("home", "tmp"):
            (self.root / name).mkdir()
        (libraries,) = (path.parent for path in ADBD.glob("usr/lib/*/ld-linux-*.so.*"))
        (loader,) = libraries.glob("ld-linux-*.so.*")
        server = f"localfilesystem:{self.root}/server"
        script = (
            "ip link set lo up\n"
            f"ADBD_PORT={self.serial.partition(':')[2]} PATH={self.root}/bin:$PATH PHONE={self.root} {loader} "
            f"--library-path {libraries}:{libraries}/android {ADBD}/usr/lib/android-sdk/platform-tools/adbd &\n"
            f"exec adb -L {server} server nodaemon"
        )
        with pytest.MonkeyPatch.context() as patch, (self.root / "log").open("wb") as log:
            for name, value in (("HOME", str(self.root / "home")), ("ADB_SERVER_SOCKET", server)):
                patch.setenv(name, value)
            command = ["unshare", "-n", "sh", "-c", script]
            process = subprocess.Popen(command, cwd=self.root, stdout=log, stderr=log, start_new_session=True)
            try:
                wait_for(
                    lambda: (self.root / "server").exists() and b"adbd started" in (self.root / "log").read_bytes()
                )
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()


def word(text: str) -> str:
    """A text as a name of a file."""
    return re.sub(r"\W+", "_", text)
