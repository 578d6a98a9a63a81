"""How many bits each layer takes, and what few bits need: ranges that saturate, and steps that are learned."""
