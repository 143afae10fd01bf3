"""`duet batch`: every record of a manifest answered once, by workers on one machine or many (Ray Data)."""
