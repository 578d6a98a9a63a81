"""`edgeopt bench`: how fast finished files are, by images in a call, by threads and over minutes."""
