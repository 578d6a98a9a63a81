"""What goes to devices, into apps and into pages as it is: files by which outputs become answers outside of edgeopt."""
