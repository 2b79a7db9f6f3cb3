"""The version of anyws, for the package's metadata and for the User-Agent and Server fields."""

__version__ = "0.1.0"
