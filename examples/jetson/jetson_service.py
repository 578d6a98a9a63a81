"""The service of the Raspberry Pi, with one runtime more: TensorRT's.

python3 jetson_service.py model --folder incoming
"""

import sys

import feed
import service
from engine import open_engine

if __name__ == "__main__":
    sys.exit(service.main({**feed.OPENERS, "tensorrt": open_engine}))
