"""Phones behind adb: reached with the system's `adb`, with an app or a program of their own that runs the files."""
