"""The HTTP API, the Python client and the command line. Nothing here trains."""
