"""The HTTP side: what each address answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgeopt.arrays import Json
from edgeopt.errors import did_you_mean
from edgeopt.json_values import from_values
from edgeopt.preprocessing import Preprocessing
from edgeopt.report.finished_files import Catalogue, FinishedFile
from edgeopt.serving import metrics
from edgeopt.serving.body import Bodies, GoneError, read_body
from edgeopt.serving.job import Wanted
from edgeopt.serving.kept import KeptOutputs, digest
from edgeopt.serving.limits import Limits
from edgeopt.serving.openapi import description
from edgeopt.serving.page import make_page
from edgeopt.serving.turns import Answered, Turns
from edgeopt.serving.values import (
    Answer,
    Failure,
    FileInfo,
    FileState,
    Found,
    Guess,
    Health,
    RefusalError,
    SampleInfo,
)

_GONE = 499  # nobody reads it: who asked has hung up
_CLOSING = (400, 408, 413, 503)  # the rest of the body may still be on its way


@dataclass(eq=False)
class Api:
    """The application's state: what is served, and the queue of each file by its name."""

    catalogue: Catalogue
    turns: Mapping[str, Turns]
    limits: Limits
    folder: Path
    bodies: Bodies = field(init=False)
    metrics: metrics.Metrics = field(default_factory=metrics.Metrics)

    def __post_init__(self) -> None:
        self.bodies = Bodies(self.limits)
        self.kept = KeptOutputs(self.folder)
        self.files = {file.name: file for file in self.catalogue.files}
        self.samples = {(sample.run, sample.index): sample for sample in self.catalogue.samples}
        self.page = make_page(" and ".join(dict.fromkeys(file.run for file in self.catalogue.files)), self.limits)
        self.described = _json(description(self.files, self.limits))

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/favicon.ico", self._icon),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
                Route("/openapi.json", self._openapi),
                Route("/v1/files", self._files),
                Route("/v1/samples", self._samples),
                Route("/v1/samples/{run}/{index:int}", self._sample),
                Route("/v1/predict", self._predict, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _failed, RefusalError: _refused},
        )

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(self.page.html, headers={"content-security-policy": self.page.policy})

    async def _icon(self, _: Request) -> Response:
        return Response(status_code=204)  # browsers ask for one whatever the page says

    async def _openapi(self, _: Request) -> Response:
        return Response(self.described, media_type="application/json")

    async def _health(self, _: Request) -> Response:
        states = {name: turns.state for name, turns in self.turns.items()}
        ready = sum(state is FileState.READY for state in states.values())
        if ready:
            status = "ok" if ready == len(states) else "partly"
        else:
            status = "failed" if FileState.FAILED in states.values() else "opening"
        return _answer(asdict(Health(status, states)), 200 if ready else 503)

    async def _metrics(self, _: Request) -> Response:
        text = metrics.render(
            self.metrics,
            {name: turns.state is FileState.READY for name, turns in self.turns.items()},
            {name: turns.length for name, turns in self.turns.items()},
            {name: turns.restarts for name, turns in self.turns.items()},
            self.bodies.held_bytes,
        )
        return PlainTextResponse(text, media_type=metrics.CONTENT_TYPE)

    async def _files(self, _: Request) -> Response:
        return _answer([asdict(self._info(file)) for file in self.files.values()])

    async def _samples(self, _: Request) -> Response:
        kept = (
            SampleInfo(sample.run, sample.index, sample.truth, f"v1/samples/{sample.run}/{sample.index}")
            for sample in self.samples.values()
        )
        return _answer([asdict(sample) for sample in kept])

    async def _sample(self, request: Request) -> Response:
        sample = self.samples.get((request.path_params["run"], request.path_params["index"]))
        if sample is None or not sample.path.is_file():
            raise RefusalError(404, "there is no such test image", "/v1/samples lists those that there are")
        return FileResponse(sample.path, media_type="image/png")

    async def _predict(self, request: Request) -> Response:
        name = request.query_params.get("file", "")
        known = name if name in self.files else ""
        try:
            answer = await self._answered(request, name)
        except RefusalError as refusal:
            self.metrics.refused(known, refusal.status)
            raise
        except GoneError:
            self.metrics.refused(known, _GONE)
            return Response(status_code=_GONE)
        self.metrics.answered(name, answer.total_ms, answer.file_ms)
        return _answer(asdict(answer))

    async def _answered(self, request: Request, name: str) -> Answer | Found:
        with self.bodies.room() as room:
            image = await read_body(request, room)
            start = time.perf_counter()
            reference = request.query_params.get("reference", "")
            for each in (name, *([reference] if reference else [])):
                if each not in self.files:
                    message = f"there is no file {each!r}" if each else "no file is named: /v1/predict?file=NAME"
                    raise RefusalError(404, message, did_you_mean(each, self.files))
            is_prepared, everything = _truth(request, "prepared"), _truth(request, "everything")
            file = self.files[name]
            answered = await self._compared(name, reference, image, is_prepared=is_prepared)
        times = {each: getattr(answered, each) for each in ("decode_ms", "preprocessing_ms", "file_ms", "queue_ms")}
        times["total_ms"] = (time.perf_counter() - start) * 1e3
        shared = {"file": name, **times, "size_bytes": file.size_bytes, "alike": answered.alike}
        if answered.found is not None:
            return from_values(
                Found, {"task": file.card.task, **_told(answered.found, everything=everything), **shared}
            )
        top = tuple(Guess(label, share) for label, share in answered.top)
        return Answer(label=top[0].label, confidence=top[0].confidence, top=top, **shared)

    async def _compared(self, name: str, reference: str, image: bytes, *, is_prepared: bool) -> Answered:
        """The answer of a file, compared with that of the reference, which is asked first where its is not known."""
        turns, wanted = self.turns[name], Wanted(is_prepared)
        if not reference:
            return await turns.answer(image, wanted)
        key = digest(image, is_prepared=is_prepared)
        if name == reference:
            number = self.kept.new()
            answered = await turns.answer(image, replace(wanted, keep=number))
            self.kept.add(name, key, number)
            return replace(answered, alike=True)
        if not _comparable(self.files[name], self.files[reference]):
            return await turns.answer(image, wanted)
        known = self.kept.number(reference, key)
        if known is None:
            try:
                await self._compared(reference, reference, image, is_prepared=is_prepared)
            except RefusalError:
                return await turns.answer(image, wanted)  # which may be able to answer, and cannot be compared
            known = self.kept.number(reference, key) or 0
        return await turns.answer(image, replace(wanted, reference=known))

    def _info(self, file: FinishedFile) -> FileInfo:
        turns, row = self.turns[file.name], file.row
        return FileInfo(
            name=file.name,
            run=file.run,
            export=row.export,
            runtime=row.runtime,
            precision=row.precision,
            role=row.role,
            task=file.card.task,
            size_bytes=file.size_bytes,
            test_accuracy=row.test_accuracy,
            image_size=Preprocessing.from_json(file.card.preprocessing).image_size,
            state=turns.state,
            reason=turns.reason,
            restarts=turns.restarts,
        )


async def opened(turns: Mapping[str, Turns]) -> None:
    """Returns when every file was opened, or could not be."""
    await asyncio.gather(*(each.first.wait() for each in turns.values()))


def _comparable(one: FinishedFile, other: FinishedFile) -> bool:
    """Whether two files speak of the same classes, in the same places of an image."""
    return all(getattr(one.card, each) == getattr(other.card, each) for each in ("task", "classes", "preprocessing"))


def _told(found: Mapping[str, Json], *, everything: bool) -> dict[str, Json]:
    """What was found without the labels and boxes that are below their thresholds, or with them."""
    values = dict(found)
    if everything:
        return values
    if values["labels"] is not None:
        values["labels"] = [each for each in values["labels"] if each["told"]]
    if values["boxes"] is not None:
        values["boxes"] = [each for each in values["boxes"] if each["score"] >= values["shown_score"]]
    return values


def _truth(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise RefusalError(400, f"{name} is {text!r}", "give true or false")
    return text == "true"


def _json(values: Json) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()


def _answer(values: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_json(values), status, headers, media_type="application/json")


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, RefusalError)  # what it is registered for
    headers = {"connection": "close"} if refusal.status in _CLOSING else {}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(refusal.retry_after_s)
    return _answer(asdict(refusal.failure), refusal.status, headers)


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # what it is registered for
    failure = Failure(f"{error.detail}".lower(), "/openapi.json describes what there is")
    return _answer(asdict(failure), error.status_code, error.headers)
