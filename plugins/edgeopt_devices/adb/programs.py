"""Programs for Android that run files: LiteRT's `benchmark_model` and `run_model`, ExecuTorch's `executor_runner`.

What they take and print is that of their sources in November 2026:
https://github.com/google-ai-edge/LiteRT, `tflite/tools/benchmark` and `litert/tools`;
https://github.com/pytorch/executorch, `examples/portable/executor_runner`.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.plugins import DeviceError, DeviceFile, DeviceJob, Preprocessing, Problem
from edgeopt_devices.adb.facts import PhoneFacts
from edgeopt_devices.adb.phone import Phone
from edgeopt_devices.adb.runner import Answered, Timed
from edgeopt_devices.adb.tensors import bytes_of, input_bytes, outputs_in, tensors_of
from edgeopt_devices.options import RunnerOptions

if TYPE_CHECKING:
    from edgeopt.plugins import Pixels

_ABIS = {3: "x86", 40: "armeabi-v7a", 62: "x86_64", 183: "arm64-v8a"}  # by e_machine of ELF
_LONG_S = 1e6
_NO_OUTPUT = 92  # what a job ends with where a program ended well and wrote no output
_FAILED = re.compile(r"error|fail|not executable|cannot link|no such file|unknown|abort|signal", re.IGNORECASE)
_NUMBER = r"([-+\d.eE]+)"
#: A process for each image. INPUTS has them one after the other.
_ANSWERS = """i=0
: > answers.bin
while [ $i -lt {images} ]; do
  rm -f {output}
  dd if=inputs.bin of=input.bin bs={size} skip=$i count=1 2>/dev/null || exit 1
  {command} > log.txt 2>&1 || {{ code=$?; cat log.txt; exit $code; }}
  [ -s {output} ] || {{ cat log.txt; exit {no_output}; }}
  cat {output} >> answers.bin || exit 1
  i=$((i + 1))
done"""


class Program(ABC):
    """A program on a phone, which runs one file in one process."""

    suffix: ClassVar[str]
    output: ClassVar[str] = ""  # the file that an answer comes in
    no_answers: ClassVar[str] = ""  # why there are none

    def __init__(self, phone: Phone, options: RunnerOptions, facts: PhoneFacts, cores: tuple[int, ...]) -> None:
        self._phone = phone
        self._options = options
        self._facts = facts
        self._cores = cores
        self._call_ms: dict[str, float] = {}

    @property
    def versions(self) -> Mapping[str, str]:
        """See `Runner`."""
        return {self._options.kind: f"sha256 {self._options.sha256[:12]}…"}

    def require(self, file: DeviceFile, job: DeviceJob) -> None:
        """See `Runner`."""
        if file.path.suffix != self.suffix:
            raise DeviceError(f"{self._options.kind} opens {self.suffix} files, and this one is {file.path.suffix}")
        if job.batch_size != 1:
            raise DeviceError(f"{self._options.kind} takes one image in a call")
        tensors_of(file.card)

    def answers(self, file: DeviceFile, pixels: Pixels, job: DeviceJob, aside: Path) -> Answered:
        """See `Runner`."""
        if not self.output:
            return Answered(None, self.no_answers)
        given, returned = tensors_of(file.card)
        assert file.card is not None  # `tensors_of` looked
        preprocessing = Preprocessing.from_json(file.card.preprocessing)
        values = None if given.holds == "pixels" else preprocessing.normalize(pixels)
        inputs = aside / "inputs.bin"
        inputs.write_bytes(input_bytes(given, pixels, values))
        self._phone.send("inputs.bin", inputs)
        shape = ",".join(map(str, (1, *given.shape[1:])))
        script = _ANSWERS.format(
            images=len(pixels),
            size=bytes_of(given),
            output=self.output,
            no_output=_NO_OUTPUT,
            command=self._pinned(f"{self._placed()} {self._answer(self._path(file), shape, job.threads)}", job.threads),
        )
        said = self._phone.job(script, job.timeout_s)
        if said.code == _NO_OUTPUT and self.no_answers:
            return Answered(None, self.no_answers)
        self._require(said.code, said.text)
        return Answered(outputs_in(returned, self._phone.fetch("answers.bin", aside / "answers.bin"), len(pixels)))

    def timed(self, file: DeviceFile, calls: int, seconds: float, job: DeviceJob) -> Timed:
        """See `Runner`."""
        known_ms = self._call_ms.get(file.name)
        if seconds and known_ms is None:
            self.timed(file, max(calls, 3), 0.0, job)
            known_ms = self._call_ms[file.name]
        least = max(calls, math.ceil(1e3 * seconds / known_ms)) if known_ms else calls
        command = self._time(self._path(file), least, seconds, max(job.warmup, 1), job.threads)
        said = self._phone.job(self._pinned(f"{self._placed()} {command}", job.threads), job.timeout_s + 2 * seconds)
        self._require(said.code, said.text)
        timed = self._read(said.text, max(job.warmup, 1))
        total_ms = sum(timed.times_ms) * (timed.means_of or 1)
        self._call_ms[file.name] = total_ms / (timed.means_of or len(timed.times_ms))
        return timed

    # ---- what each of them takes and prints

    @abstractmethod
    def _answer(self, model: str, shape: str, threads: int) -> str:
        """The arguments for one call with `input.bin`, after which `output` is there; none where there is none."""

    @abstractmethod
    def _time(self, model: str, calls: int, seconds: float, warmup: int, threads: int) -> str:
        """The arguments for calls that are timed."""

    @abstractmethod
    def _read(self, said: str, warmup: int) -> Timed:
        """The times in what it printed."""

    # ---- helpers

    def _placed(self) -> str:
        """Where the program lies on the phone, taken there where it is not yet."""
        return self._phone.put(self._options.path, self._options.sha256)

    def _path(self, file: DeviceFile) -> str:
        return self._phone.put(file.path, file.sha256)

    def _pinned(self, command: str, threads: int) -> str:
        """A command that is kept to the fastest cores, one a thread, where the phone tells them and can do it."""
        cores = self._cores or self._facts.fastest(threads)
        mask = sum(1 << core for core in cores)
        return f"$(command -v taskset >/dev/null && echo taskset {mask:x}) {command}" if cores else command

    def _require(self, code: int, said: str) -> None:
        if code == 0:
            return
        if "No space left" in said:
            raise self._phone.full()
        raise DeviceError(f"{self._options.kind} ended with code {code}: {_reason(said)}")

    def _untold(self, said: str) -> DeviceError:
        last = said.splitlines()[-1] if said else "it printed nothing"
        hint = "see docs/devices.md for the versions that are known, and how they are built"
        return DeviceError(Problem(f"{self._options.kind} told no times: {last}", hint))


class BenchmarkModel(Program):
    """`benchmark_model`, of TensorFlow Lite or of LiteRT. The former writes what the file returned."""

    suffix = ".tflite"
    output = "output.bin"
    no_answers = "answers are not given by this runner: this benchmark_model writes no outputs"

    def _answer(self, model: str, shape: str, threads: int) -> str:
        """See `Program`. The name of the input may be any."""
        return (
            f"--graph={model} --num_threads={threads} --num_runs=1 --min_secs=0 --warmup_runs=0 --warmup_min_secs=0 "
            f"--input_layer=input --input_layer_shape={shape} --input_layer_value_files=input:input.bin "
            f"--output_filepath={self.output}"
        )

    def _time(self, model: str, calls: int, seconds: float, warmup: int, threads: int) -> str:
        """See `Program`."""
        return (
            f"--graph={model} --num_threads={threads} --num_runs={calls} --min_secs={seconds:g} --max_secs={_LONG_S:g} "
            f"--warmup_runs={warmup} --warmup_min_secs=0"
        )

    def _read(self, said: str, warmup: int) -> Timed:  # noqa: ARG002
        """See `Program`. Warm-up and calls have a line each, `count=20 first=1 curr=1 min=1 max=1 avg=1 std=0`, µs."""
        lines = re.findall(r"\bcount=(\d+)\b(.*)", said)
        init_us, init_ms = _last(rf"Init: {_NUMBER}", said), _last(rf"Model initialization: +{_NUMBER} ms", said)
        first_us = _last(rf"First inference: {_NUMBER},", said)
        first_ms = _last(rf"(?:Warmup \(first\)|First inference): +{_NUMBER} ms", said)
        memory_mb = _last(rf"(?:\boverall=|Overall footprint: +){_NUMBER}", said)
        if not lines:
            raise self._untold(said)
        mean_us = _last(rf"\b(?:avg|curr)={_NUMBER}", lines[-1][1])
        if mean_us is None:
            raise self._untold(said)
        return Timed(
            (mean_us / 1e3,),
            load_ms=init_us / 1e3 if init_us is not None else init_ms or 0.0,
            first_ms=first_us / 1e3 if first_us is not None else first_ms or 0.0,
            means_of=int(lines[-1][0]),
            peak_memory_bytes=round((memory_mb or 0.0) * 2**20),
        )


class RunModel(Program):
    """`run_model` of LiteRT, which feeds what it makes itself and prints samples: it gives no answers."""

    suffix = ".tflite"
    no_answers = "answers are not given by this runner: run_model takes no inputs and writes no outputs"

    def require(self, file: DeviceFile, job: DeviceJob) -> None:
        """See `Runner`."""
        super().require(file, job)
        if job.threads != 1:
            raise DeviceError(
                "run_model takes no number of threads", hint="leave --threads out, or take another runner"
            )

    def _answer(self, model: str, shape: str, threads: int) -> str:  # noqa: ARG002 - it is never asked
        """See `Program`."""
        return ""

    def _time(self, model: str, calls: int, seconds: float, warmup: int, threads: int) -> str:  # noqa: ARG002
        """See `Program`. It has no warm-up of its own, and nothing lasts for so long."""
        return f"--graph={model} --iterations={1 + warmup + calls}"

    def _read(self, said: str, warmup: int) -> Timed:  # noqa: ARG002
        """See `Program`. Of all calls but the first; the warm-up is among them, for it tells the mean of all alone."""
        count = _last(r"Run model for (\d+) times", said)
        first_us = _last(rf"First run took {_NUMBER} microseconds", said)
        mean_us = _last(rf"All runs took average {_NUMBER} microseconds", said)
        if count is None or first_us is None or mean_us is None:
            raise self._untold(said)
        others = int(count) - 1
        return Timed(
            ((mean_us * count - first_us) / others / 1e3,), load_ms=0.0, first_ms=first_us / 1e3, means_of=others
        )


class ExecutorRunner(Program):
    """`executor_runner` of ExecuTorch, which reads its input from a file and writes what was returned to another."""

    suffix = ".pte"
    output = "output-0.bin"

    def _answer(self, model: str, shape: str, threads: int) -> str:  # noqa: ARG002 - it knows the shape
        """See `Program`."""
        return f"--model_path={model} --inputs=input.bin --output_file=output --cpu_threads={threads}"

    def _time(self, model: str, calls: int, seconds: float, warmup: int, threads: int) -> str:  # noqa: ARG002
        """See `Program`. On Android its messages go to the system's log alone, which is asked by its process."""
        return (
            f"--model_path={model} --num_executions={1 + warmup + calls} --cpu_threads={threads} > log.txt 2>&1 &\n"
            "p=$!\n"
            "wait $p; code=$?; cat log.txt\n"
            "grep -q 'executed successfully' log.txt || logcat -d -v raw --pid=$p -s ExecuTorch:V 2>/dev/null\n"
            "exit $code"
        )

    def _read(self, said: str, warmup: int) -> Timed:
        """See `Program`. Where it does not tell single calls, as before they were told, the mean is of all of them."""
        load_ms = _last(rf"Model loaded in {_NUMBER} ms", said) or 0.0
        single = [float(time) for time in re.findall(rf"Iteration \d+ of \d+: {_NUMBER} ms", said)]
        if len(single) > 1 + warmup:
            return Timed(tuple(single[1 + warmup :]), load_ms=load_ms, first_ms=single[0])
        total = re.findall(rf"executed successfully (\d+) time\(s\) in {_NUMBER} ms", said)
        if not total:
            raise self._untold(said)
        count, total_ms = int(total[-1][0]), float(total[-1][1])
        return Timed((total_ms / count,), load_ms=load_ms, first_ms=0.0, means_of=count)


_PROGRAMS: Mapping[str, type[Program]] = {
    "benchmark_model": BenchmarkModel,
    "run_model": RunModel,
    "executor_runner": ExecutorRunner,
}


def open_program(phone: Phone, options: RunnerOptions, facts: PhoneFacts, cores: tuple[int, ...], name: str) -> Program:
    """The program that options describe; nothing is taken to the phone yet.

    Raises `DeviceError` where its file is another one, or was built for another processor.
    """
    try:
        data = options.path.read_bytes()
    except OSError as error:
        hint = "write path as that of the program; docs/devices.md says where it comes from"
        raise DeviceError(f"{name}: {options.path} cannot be read: {error.strerror}", hint=hint) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != options.sha256:
        hint = f'it is another program than the one meant; where you trust it, write sha256 = "{digest}"'
        raise DeviceError(f"{name}: {options.path} has the sha256 {digest}, not {options.sha256}", hint=hint)
    if data.startswith(b"\x7fELF") and facts.abis:
        machine = int.from_bytes(data[18:20], "little")
        abi = _ABIS.get(machine, f"the machine {machine} of ELF")
        if abi not in facts.abis:
            hint = f"take the program for {facts.abis[0]}"
            raise DeviceError(f"{name}: {options.path} is for {abi}; the phone runs {', '.join(facts.abis)}", hint=hint)
    return _PROGRAMS[options.kind](phone, options, facts, cores)


def _last(pattern: str, said: str) -> float | None:
    """The number that a pattern finds last."""
    found = re.findall(pattern, said)
    return float(found[-1]) if found else None


def _reason(said: str) -> str:
    """The line that says why something failed: the first that speaks of it, else the last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if _FAILED.search(line)), lines[-1] if lines else "it said nothing")
