"""Skips tests of the browser where there is none, or where its runtimes cannot be had; asked once, not once a test."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from edgeopt.plugins import ExportError
from edgeopt_web.browser import find_browser


def needs(*runtimes: Callable[[], object]) -> None:
    """Skips what asks where there is no browser, or a runtime of it cannot be had."""
    if find_browser() is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    for runtime in runtimes:
        if missing := _missing(runtime):
            pytest.skip(missing)


@cache
def _missing(runtime: Callable[[], object]) -> str:
    """Why a runtime cannot be had. Where no registry answers, npm would try again for a minute, and for each test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("npm_config_fetch_retries", "0")
        try:
            runtime()
        except ExportError as error:
            return error.problems[0].message
    return ""
