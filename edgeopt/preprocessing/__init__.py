"""How an image becomes a model's input, and where a place of it lies there."""

from edgeopt.preprocessing.decoded import DEPTH as DEPTH
from edgeopt.preprocessing.decoded import GREY_BITS as GREY_BITS
from edgeopt.preprocessing.decoded import WHITE as WHITE
from edgeopt.preprocessing.description import IMAGENET_MEAN as IMAGENET_MEAN
from edgeopt.preprocessing.description import IMAGENET_STD as IMAGENET_STD
from edgeopt.preprocessing.description import Interpolation as Interpolation
from edgeopt.preprocessing.description import Preprocessing as Preprocessing
from edgeopt.preprocessing.geometry import Fit as Fit
from edgeopt.preprocessing.geometry import Geometry as Geometry
from edgeopt.preprocessing.sources import chosen_size as chosen_size
from edgeopt.preprocessing.sources import preprocessing_of_source as preprocessing_of_source
