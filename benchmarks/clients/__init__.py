"""The clients that are measured: a module for each library, with the command line of `command`."""
