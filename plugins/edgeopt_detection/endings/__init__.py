"""Files that end at boxes: overlapping ones are removed within, in each format by its own operator."""
