"""The figures that both augmentations draw by: the one in PyTorch and the one in NumPy.

Sources: grey from ITU-R BT.601, as Pillow has it; crops from C. Szegedy et al., "Going Deeper with Convolutions", CVPR
2015; erased rectangles from Z. Zhong et al., "Random Erasing Data Augmentation", AAAI 2020.
"""

from edgeopt.preprocessing.decoded import LUMA as LUMA  # noqa: PLC0414 - both augmentations look for it here

CROP_ASPECTS = (3 / 4, 4 / 3)
ERASED_SHARES = (0.02, 0.33)
ERASED_ASPECTS = (0.3, 3.3)
