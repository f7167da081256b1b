"""What people touch: the HTTP API, the Python client and the command line. Nothing here trains."""
