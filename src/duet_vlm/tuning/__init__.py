"""`duet tune`: the cheapest setting that keeps what was asked, on a user's own questions."""
