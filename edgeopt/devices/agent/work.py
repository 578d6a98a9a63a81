"""A job on the device: files answer one after the other, then they are timed in turns.

What is done is kept in the folder of the job until somebody has it, so that a connection that was lost costs no more
than the part that was at work.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeopt.devices.agent.energy import Metering
from edgeopt.devices.agent.messages import Message
from edgeopt.devices.agent.processes import Child, FileFailedError, Processes
from edgeopt.measure.calls import END, OPEN, Turn
from edgeopt.measure.state import fastest_cores, machine_state

_TIMES = "times.json"


class Work:
    """One job, whose parts are kept in `folder`."""

    def __init__(self, job: Message, folder: Path, processes: Processes, send: Callable[[Message], None]) -> None:
        self._job = job
        self._folder = folder
        self._processes = processes
        self._send = send
        self._failures: dict[int, str] = {}

    def run(self) -> None:
        """Does what is not done yet, and sends every part."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(self._job["files"]):
            if self._job["answers"] and number not in self._job["have"]:
                self._answer(number, file)
        if self._job["turns"]:
            self._time()
        if self._job["whole"]:
            for number, file in enumerate(self._job["files"]):
                if file["way"] and number not in self._failures:
                    self._whole(number, file)
        for number, message in self._failures.items():
            self._send({"event": "failed", "file": number, "message": message})
        self._send({"event": "ran"})

    def _answer(self, number: int, file: Message) -> None:
        target = self._folder / f"answers-{number}.npz"
        if not target.exists():
            self._say(f"{file['name']}: answers")
            child = self._child(file, {"answers": str(target)})
            try:
                while child.event(self._job["timeout_s"]) is not None:
                    pass
            except FileFailedError as error:
                self._failures[number] = str(error)
                return
            finally:
                child.end()
        self._send({"event": "answers", "file": number, "npz": base64.b64encode(target.read_bytes()).decode()})

    def _whole(self, number: int, file: Message) -> None:
        self._say(f"{file['name']}: whole way")
        child = self._child(file, {"answers": "", "whole": self._job["whole"], "way": file["way"]})
        try:
            message = child.event(self._job["timeout_s"])
        except FileFailedError as error:
            self._send({"event": "no-whole", "file": number, "message": str(error)})
        else:
            self._send({**(message or {"event": "no-whole", "message": "it said nothing"}), "file": number})
        finally:
            child.end()

    def _time(self) -> None:
        kept = self._folder / _TIMES
        if not kept.exists():
            times = self._timed([number for number in range(len(self._job["files"])) if number not in self._failures])
            pending = kept.with_suffix(".part")
            pending.write_text(json.dumps(times))
            pending.replace(kept)
        for number, each in json.loads(kept.read_text()).items():
            if "failure" in each:
                self._failures[int(number)] = each["failure"]
            else:
                self._send({"event": "times", "file": int(number), **each})

    def _timed(self, numbers: Sequence[int]) -> dict[int, Message]:
        """What each file's turns took. All files are open before the first turn, and nobody works beside another."""
        limit_s = self._job["timeout_s"]
        children: dict[int, Child] = {}
        found: dict[int, Message] = {number: {"turns_ms": [], "states": []} for number in numbers}
        metering = Metering(found)

        def each(step: Callable[[int, Child], None], what: str) -> None:
            for number in numbers:
                if "failure" in found[number]:
                    continue
                self._say(f"{self._job['files'][number]['name']}: {what}")
                try:
                    step(number, children[number])
                except FileFailedError as error:
                    found[number] = {"failure": str(error)}
                    children[number].end()

        def said(child: Child, seconds: float = 0.0) -> Message:
            message = child.event(limit_s + seconds)
            if message is None:
                raise FileFailedError("the process ended before its time")
            return message

        def here(_number: int, child: Child) -> None:
            said(child)

        def ready(number: int, child: Child) -> None:
            child.ask(OPEN)
            message = said(child)
            found[number] |= {"load_ms": message["load_ms"], "first_ms": message["first_ms"]}

        def called(child: Child, turn: Turn, turns_ms: list[list[float]]) -> int:
            child.ask(turn.to_text())
            turns_ms.append(said(child, turn.seconds)["times_ms"])
            return int(self._job["batch_size"]) * len(turns_ms[-1])

        def use(number: int, child: Child) -> None:
            metering.after(number, lambda seconds: called(child, Turn(1, seconds), []))

        def last(number: int, child: Child) -> None:
            child.ask(END)
            found[number]["peak_memory_bytes"] = said(child)["peak_memory_bytes"]

        try:
            for number in numbers:
                children[number] = self._child(self._job["files"][number], {"answers": ""})
            each(here, "start")
            each(ready, "load")
            metering.begin(after=self._job.get("energy", False), beside=self._job.get("turn_energy", False))
            for calls, seconds in self._job["turns"]:
                turn = Turn(calls, seconds)

                def take(number: int, child: Child, turn: Turn = turn) -> None:
                    metering.turn(number, turn.seconds, lambda: called(child, turn, found[number]["turns_ms"]))
                    state = machine_state()
                    found[number]["states"].append([state.temperature_c, state.clock_mhz])

                each(take, "turn")
            if metering.meter is not None:
                each(use, "energy")
            each(last, "end")
        finally:
            for child in children.values():
                child.end()
        return found

    def _child(self, file: Message, more: Message) -> Child:
        job = self._job
        threads = job["threads"]
        task = {
            **{name: file[name] for name in ("file", "opener", "scale", "offset")},
            **{name: job[name] for name in ("images", "batch_size", "warmup", "threads")},
            "cores": job["cores"] or fastest_cores(threads),
            **more,
        }
        return Child(self._processes, file["command"], task, threads, self._folder.parents[1] / "cache")

    def _say(self, text: str) -> None:
        self._send({"event": "step", "text": text})
