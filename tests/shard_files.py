"""Shards of WebDataset for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping


def shard(files: Mapping[str, bytes]) -> bytes:
    """A `.tar` of files by name, as WebDataset has them."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return held.getvalue()
