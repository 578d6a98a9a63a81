"""Imports of large libraries without what they would import in passing."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, PackageNotFoundError


@contextmanager
def without_packages(*names: str) -> Iterator[None]:
    """Packages look as if they were not installed, for what is imported meanwhile.

    Libraries import others that happen to be installed, for features that nobody asks for here, and that can take as
    long as the library itself. What has been imported before stays seen, and afterwards every package can be imported
    again; the library goes on without those that it did not find. No other thread should import anything meanwhile.
    """
    hidden = [name for name in names if name not in sys.modules]
    found = importlib.metadata.distribution

    def distribution(distribution_name: str) -> Distribution:
        if distribution_name in hidden:
            raise PackageNotFoundError(distribution_name)
        return found(distribution_name)

    # None is Python's own word for a module that cannot be imported; some libraries look for the distribution first
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    importlib.metadata.distribution = distribution
    try:
        yield
    finally:
        importlib.metadata.distribution = found
        for name in hidden:
            sys.modules.pop(name, None)
