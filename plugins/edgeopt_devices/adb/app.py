"""An app of `edgeopt app android` in its build `bench`, which does jobs over adb; docs/android.md has what it takes."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.plugins import DeviceError, DeviceFile, DeviceJob, Problem, as_outputs
from edgeopt_devices.adb.phone import Phone
from edgeopt_devices.adb.runner import Answered, Timed
from edgeopt_devices.adb.tensors import outputs_in, tensors_of

if TYPE_CHECKING:
    from edgeopt.plugins import Pixels

_JOB = "edgeopt"
_BUILD = "`edgeopt app android RUN --out my-app`, then `./gradlew installBench` in it"
_GONE_LOOKS = 2  # an app that has just been started is not there at once
#: Looks for a second, and says what it saw.
_LOOK = """n=0
while [ $n -lt 10 ]; do
  [ -f {folder}/result.json ] && {{ cat {folder}/result.json; exit 0; }}
  n=$((n + 1))
  sleep 0.1
done
pidof {app} >/dev/null && exit 90 || exit 91"""


class App:
    """An app on a phone, which has one job at a time."""

    def __init__(self, phone: Phone, app: str, version: str) -> None:
        self._phone = phone
        self._app = app
        self._version = version
        self._folder = job_folder(app)
        self._call_ms: dict[str, float] = {}

    @property
    def versions(self) -> Mapping[str, str]:
        """See `Runner`."""
        return {self._app: self._version}

    def require(self, file: DeviceFile, job: DeviceJob) -> None:
        """See `Runner`."""
        if job.batch_size != 1:
            raise DeviceError("the app takes one image in a call")
        if file.card is None:
            raise DeviceError("it has no card, by which the app would feed it", hint="run the recipe again")
        given, returned = file.card.input, file.card.outputs
        if "int16" in {each.dtype for each in (given, *returned) if each is not None}:
            raise DeviceError("the app knows no int16", hint="export it without `quantized_io`, for float32")

    def answers(self, file: DeviceFile, pixels: Pixels, job: DeviceJob, aside: Path) -> Answered:
        """See `Runner`."""
        assert file.card is not None  # `require` looked
        images = aside / "pixels.bin"
        images.write_bytes(pixels.tobytes())
        self._phone.send("pixels.bin", images)
        result = self._ask(file, job, runs=1, warmup=0, pixels=True)
        script = f"cp {self._folder}/answers.bin {self._phone.own}/work/answers.bin"
        self._phone.require(self._phone.run(script))
        data = self._phone.fetch("answers.bin", aside / "answers.bin")
        _given, infos = tensors_of(file.card)
        numbers = [replace(info, dtype="float32", scale=None, zero_point=None) for info in infos]
        found = outputs_in(numbers, data, len(pixels))
        note = None
        if file.card.self_test is not None and not result["self_test_passed"]:
            note = (
                f"the self-test of the app failed: pixels differ by {result['pixel_difference']} grey levels, logits "
                f"by {result['logit_difference']:.3g}"
            )
        whole = [info.scale is None and info.dtype != "float32" for info in infos]
        outputs = [
            output.astype(info.dtype) if is_whole else output
            for output, info, is_whole in zip(found, infos, whole, strict=True)
        ]
        return Answered(as_outputs(outputs), note)

    def timed(self, file: DeviceFile, calls: int, seconds: float, job: DeviceJob) -> Timed:
        """See `Runner`."""
        known_ms = self._call_ms.get(file.name)
        if seconds and known_ms is None:
            self.timed(file, max(calls, 3), 0.0, job)
            known_ms = self._call_ms[file.name]
        runs = max(calls, math.ceil(1e3 * seconds / known_ms)) if known_ms else calls
        result = self._ask(file, job, runs=runs, warmup=job.warmup, seconds=seconds)
        times_ms = tuple(map(float, result["times_ms"]))
        self._call_ms[file.name] = sum(times_ms) / len(times_ms)
        return Timed(times_ms, load_ms=float(result["load_ms"]), first_ms=float(result["first_ms"]))

    def _ask(
        self,
        file: DeviceFile,
        job: DeviceJob,
        *,
        runs: int,
        warmup: int,
        seconds: float = 0.0,
        pixels: bool = False,
    ) -> Mapping[str, Any]:
        """What the app says of a job; with `pixels`, those in the folder for work are answered."""
        model = self._phone.put(file.path, file.sha256)
        card = self._card(file)
        folder, app = self._folder, self._app
        said = self._phone.run(
            f"am force-stop {app}; rm -rf {folder} && mkdir -p {folder} && cp {model} {folder}/model && "
            f"cp {card} {folder}/card.json"
            + (f" && mv {self._phone.own}/work/pixels.bin {folder}/pixels.bin" if pixels else "")
        )
        self._phone.require(said)
        said = self._phone.run(
            f"am start -n {app}/edgeopt.app.BenchActivity --es job {_JOB} --ei runs {runs} --ei warmup {warmup} "
            f"--ei threads {job.threads}"
        )
        if said.code or "Error" in said.text:
            problem = Problem(f"{app} does no jobs: {_reason(said.text)}", f"install its build bench: {_BUILD}")
            raise DeviceError(problem)
        result = json.loads(self._result(job.timeout_s + 2 * seconds))
        self._phone.run(f"am force-stop {app}; rm -f {folder}/model {folder}/pixels.bin")
        if "error" in result:
            raise DeviceError(str(result["error"]))
        return dict(result)

    def _result(self, limit_s: float) -> str:
        """The text that the app writes last. Raises `DeviceError` where it ended without, or needs too long."""
        until = time.monotonic() + limit_s
        gone = 0
        while time.monotonic() < until:
            said = self._phone.run(_LOOK.format(folder=self._folder, app=self._app))
            if said.code == 0:
                return said.text
            gone = gone + 1 if said.code == 91 else 0
            if gone >= _GONE_LOOKS:
                raise DeviceError("the app ended without a result", hint="`adb logcat -b crash` says why")
        self._phone.run(f"am force-stop {self._app}")
        raise DeviceError(f"no sign of life for {limit_s:g} s, so it was ended")

    def _card(self, file: DeviceFile) -> str:
        """Where the card of a file lies on the phone."""
        assert file.card is not None  # `require` looked
        text = file.card.to_json().encode()
        with tempfile.TemporaryDirectory(prefix="edgeopt-card-") as aside:
            path = Path(aside) / "card.json"
            path.write_bytes(text)
            return self._phone.put(path, hashlib.sha256(text).hexdigest())


def open_app(phone: Phone, app: str, name: str) -> App:
    """An app that is installed. Raises `DeviceError` where it is not."""
    said = phone.run(f"pm path {app} && dumpsys package {app} | grep -m1 versionName")
    if "package:" not in said.text:
        raise DeviceError(f"{name}: there is no app {app} on it", hint=f"install it: {_BUILD}")
    return App(phone, app, said.text.rpartition("versionName=")[2].strip() or "of a version that is not told")


def job_folder(app: str) -> str:
    """Where an app has its jobs."""
    return f"/sdcard/Android/data/{app}/files/bench/{_JOB}"


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if line.startswith("Error")), lines[-1] if lines else "no word")
