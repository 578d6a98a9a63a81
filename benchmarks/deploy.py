"""Everything that ships or measures a finished run, against its bars: the server of `edgeopt serve` (`serving.py`)."""

from __future__ import annotations

import serving
from bars import finish

if __name__ == "__main__":
    finish(*serving.measure())
