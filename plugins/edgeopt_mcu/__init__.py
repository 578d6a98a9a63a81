"""Small networks for microcontrollers, from scratch."""
