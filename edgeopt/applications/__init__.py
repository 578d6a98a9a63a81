"""What is made from a card: the lines that feed a file, in several languages, and whole apps."""
