"""`python -m edgeopt.describe docs/reference.md` writes the reference page of the plugins that come with edgeopt."""

import sys
from pathlib import Path

from edgeopt.describe.reference import write_reference

write_reference(Path(sys.argv[1]))
