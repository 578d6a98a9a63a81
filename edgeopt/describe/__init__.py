"""What declarations say of themselves: a table of options, TOML to paste, a reference page, a JSON schema.

Everything here is read from option models; nothing is written by hand, so nothing can be out of date.
"""
