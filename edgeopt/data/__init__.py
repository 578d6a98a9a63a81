"""From the images of a data set to splits of pixels that every process reads."""
