"""Cards: what an app must know to use a file, and how the card is found beside a file or within it."""
