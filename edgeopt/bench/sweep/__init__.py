"""Files that a benchmark makes anew from what a run kept: for other sizes of images, and for more images in a call."""
