"""`edgeopt schema`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from edgeopt.describe.json_schema import recipe_schema
from edgeopt.files import write_aside
from edgeopt.plugins.registry import load_registry


def write_schema(output: Path | None, plugin_files: Iterable[Path]) -> None:
    """Writes the JSON schema of recipes to a file, or to stdout."""
    text = json.dumps(recipe_schema(load_registry(plugin_files)), indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        write_aside(output, text)
