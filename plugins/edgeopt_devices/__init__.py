"""This machine, boards behind ssh, and phones behind adb, as devices on which files answer and are timed."""
