"""From a recipe's text to a plan: read, look up, plan, and make the keys of results."""
