"""From a program to a file that is opened again in its own runtime."""
