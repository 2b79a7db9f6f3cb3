"""The command line: `anyws URI`, `anyws serve` and `anyws bench URI`.

Owns what a person or a script sees of the package; has no way of its own to the wire, and nothing
but `anyws.__main__` imports it.
"""
