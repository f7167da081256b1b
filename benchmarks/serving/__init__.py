"""What serving costs: Fovea over HTTP, the same work without HTTP, and its peers, in one run on one machine."""
