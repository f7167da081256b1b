"""Jobs: their records, their transitions, their store in Redis, leases and events."""
