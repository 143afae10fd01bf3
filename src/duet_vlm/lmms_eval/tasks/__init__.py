"""Tasks of lmms-eval shipped here: one folder each, with the functions its YAML file names in `utils.py`."""
