"""Between a socket and a route: what happens to every request."""
