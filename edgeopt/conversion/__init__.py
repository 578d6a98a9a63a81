"""`edgeopt convert`: one model file to another format, both sides run on the same images."""
