"""From the raw heads of a file to boxes: one description, and one arithmetic in Python, Kotlin and JavaScript."""
