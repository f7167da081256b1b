"""From labelled files to two splits, and the report of everything found on the way."""
