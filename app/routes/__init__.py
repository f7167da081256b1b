"""One thin file a resource: from HTTP to what does the work, and back."""
