"""Runtimes of the browser: files answered by WebAssembly in a page, verified and timed in headless Chromium."""
