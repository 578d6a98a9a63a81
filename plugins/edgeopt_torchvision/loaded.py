"""Importing this imports torchvision the way that always works: what a pickled network of torchvision's needs first."""

from edgeopt_torchvision.compat import import_torchvision

import_torchvision()
