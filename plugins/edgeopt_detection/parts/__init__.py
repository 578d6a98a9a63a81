"""What goes to boards and into apps as it is: files by which raw heads become boxes outside of edgeopt."""
