"""`duet eval`: methods against each other on one model, one data set and one machine, with intervals."""
