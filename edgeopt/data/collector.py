"""Python's search for circles of objects, put off while many objects are made at once. Light."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Within, Python does not look for circles of objects that nothing else holds.

    It looks each time that some hundred objects more than before exist. Whoever lists the files of a large data set
    makes hundred thousands of them, none of which can go, and the looks would take as long as the listing.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
