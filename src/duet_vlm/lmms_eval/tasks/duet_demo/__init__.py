"""The demonstration benchmark."""
