"""Index arithmetic, streamed attention sums and numbers drawn from content: torch alone."""
