"""Foreign protocols on the same engine: each translates its wire format and holds no inference of its own."""
