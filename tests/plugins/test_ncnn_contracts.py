"""The quantizer and the exporter for ncnn keep edgeopt's contracts."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

from __future__ import annotations

from edgeopt.testing import ExporterContract, QuantizerContract


class TestNcnn(ExporterContract):
    name = "ncnn"
    fixed_batch = 1
    int8_quantizer = "ncnn"


class TestNcnnQuantizer(QuantizerContract):
    name = "ncnn"


class TestNcnnQuantizerOfAllLayers(QuantizerContract):
    name = "ncnn"
    options = {"observer": "minmax", "all_layers": True}
