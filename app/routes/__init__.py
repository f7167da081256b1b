"""One thin file per resource. Routes translate between HTTP and the code that does the work."""
