"""The API described for programs: OpenAPI 3.1, its schemas made of the dataclasses that are answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import TypeAdapter

from edgeopt._version import __version__
from edgeopt.arrays import Json
from edgeopt.serving.limits import FORMATS, Limits
from edgeopt.serving.values import Answer, Failure, FileInfo, Found, Health, SampleInfo

_ANSWERED = (Answer, Failure, FileInfo, Found, Health, SampleInfo)
_REFUSALS = {
    400: "No body, or a parameter that makes no sense",
    404: "There is no such file, or test image",
    408: "The body did not come to an end in time",
    413: "More bytes, or more pixels, than are read",
    415: "Not an image of a format that is read, or a damaged one",
    502: "The file failed, or its process died, on this image",
    503: "The file has no time, or is not open: Retry-After says when to try again",
    504: "The file did not answer in time",
}


def description(files: Iterable[str], limits: Limits) -> dict[str, Json]:
    """The whole description, as JSON values; `files` are the names that may be asked."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgeopt serve",
            "version": __version__,
            "description": "The files of finished runs, each opened in its own runtime. No image is kept.",
        },
        "paths": {
            "/v1/files": {"get": _operation("The files that are served", "files", _list_of("FileInfo"))},
            "/v1/samples": {"get": _operation("Test images that the runs kept", "samples", _list_of("SampleInfo"))},
            "/v1/samples/{run}/{index}": {"get": _sample()},
            "/v1/predict": {"post": _predict(files, limits)},
            "/health": {
                "get": _operation("Whether the files answer", "health", _reference("Health"))
                | {
                    "responses": {
                        "200": _json("At least one file answers", _reference("Health")),
                        "503": _json("No file answers", _reference("Health")),
                    }
                }
            },
            "/metrics": {
                "get": _operation("Counters and times for Prometheus", "metrics", {"type": "string"}, "text/plain")
            },
        },
        "components": {"schemas": _schemas()},
    }


def _predict(files: Iterable[str], limits: Limits) -> dict[str, Json]:
    text = (
        f"The bytes of an image file are the whole body: {', '.join(FORMATS)}, at most {limits.image_bytes:,} bytes "
        f"and {limits.pixels:,} pixels."
    )
    names, no = {"type": "string", "enum": list(files)}, {"type": "boolean", "default": False}
    answers = {"oneOf": [_reference("Answer"), _reference("Found")]}
    responses = {"200": _json("What the file answers: Answer of a classifier, Found of any other task", answers)}
    responses |= {str(status): _json(meaning, _reference("Failure")) for status, meaning in _REFUSALS.items()}
    return {
        "summary": "Ask one file what an image is",
        "operationId": "predict",
        "parameters": [
            _parameter("file", "query", names),
            _parameter("prepared", "query", no, "The image is resized and cut") | {"required": False},
            _parameter("everything", "query", no, "Labels and boxes below their thresholds too") | {"required": False},
            _parameter("reference", "query", names, "The file whose answer this one's is compared with, as `alike`")
            | {"required": False},
        ],
        "requestBody": {
            "description": text,
            "required": True,
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        },
        "responses": responses,
    }


def _sample() -> dict[str, Json]:
    image = {"type": "string", "format": "binary"}
    operation = _operation("A test image, resized and cut as the run's files took it", "sample", image, "image/png")
    operation["parameters"] = [
        _parameter("run", "path", {"type": "string"}),
        _parameter("index", "path", {"type": "integer"}),
    ]
    operation["responses"]["404"] = _json(_REFUSALS[404], _reference("Failure"))
    return operation


def _operation(
    summary: str, name: str, schema: Mapping[str, Json], content: str = "application/json"
) -> dict[str, Json]:
    return {
        "summary": summary,
        "operationId": name,
        "responses": {"200": {"description": summary, "content": {content: {"schema": schema}}}},
    }


def _parameter(name: str, where: str, schema: Mapping[str, Json], text: str = "") -> dict[str, Json]:
    return {"name": name, "in": where, "required": True, "schema": schema} | ({"description": text} if text else {})


def _json(text: str, schema: Mapping[str, Json]) -> dict[str, Json]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _reference(name: str) -> dict[str, Json]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(name: str) -> dict[str, Json]:
    return {"type": "array", "items": _reference(name)}


def _schemas() -> dict[str, Json]:
    schemas: dict[str, Json] = {}
    for kind in _ANSWERED:
        schema = TypeAdapter(kind).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[kind.__name__] = schema
    return schemas
