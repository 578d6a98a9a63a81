"""Detection: boxes and their readers, decoding of raw heads, scores, and networks whose files end at raw heads."""
