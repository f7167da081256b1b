"""Bodies of requests and answers. No FastAPI and no torch here: the client speaks them too."""
