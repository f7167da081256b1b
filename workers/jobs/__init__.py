"""Jobs: the record, its transitions, its store in Redis, leases and events."""
