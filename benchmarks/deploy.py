"""Everything that ships or measures a finished run, against its bars: the server of `edgeopt serve` (`serving.py`), the
pixels of its page in a folder (`page_pixels.py`), what an app makes of images (`applications.py`), devices behind ssh
(`devices.py`), and what `edgeopt bench` takes (`bench_cost.py`).
"""

from __future__ import annotations

import applications
import bench_cost
import devices
import page_pixels
import serving
from bars import finish

if __name__ == "__main__":
    finish(
        *bench_cost.measure(), *devices.measure(), *serving.measure(), *page_pixels.measure(), *applications.measure()
    )
