"""Imports torchvision as `compat` does; a pickled network of torchvision needs this import before it is read."""

from edgeopt_torchvision.compat import import_torchvision

import_torchvision()
