"""`edgeopt tune`: says the goal, finds the recipe."""
