"""The names of the built-in benchmarks, which `benchmark` draws."""

from ..inputs.model_folders import DEMO, PAGES

BUILT_IN = (DEMO, PAGES)  # each is the name for `duet eval --data`
