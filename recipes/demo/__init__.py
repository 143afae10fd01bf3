"""The three training stages of the demonstration model: vision, warm-up with attention hints, full."""
