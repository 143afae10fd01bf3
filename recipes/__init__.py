"""How what the package ships was made: one folder for each, run from a clone of the repository."""
