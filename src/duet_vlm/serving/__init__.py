"""Asked by others: a server, and batches of records on many machines."""
