"""Everything that ships or measures a finished run, against its bars: the server of `edgeopt serve` (`serving.py`) and the
pixels of its page in a folder (`page_pixels.py`).
"""

from __future__ import annotations

import page_pixels
import serving
from bars import finish

if __name__ == "__main__":
    finish(*serving.measure(), *page_pixels.measure())
