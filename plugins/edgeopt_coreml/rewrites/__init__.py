"""What is changed in a program before coremltools reads it."""
