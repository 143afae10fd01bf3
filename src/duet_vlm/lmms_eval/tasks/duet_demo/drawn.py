"""The benchmark's records, drawn once; lmms-eval runs `utils.py` anew for every function that the YAML file names."""

from __future__ import annotations

from functools import cache

from duet_vlm.evaluation.benchmark import make_records
from duet_vlm.evaluation.records import Record


@cache
def records() -> dict[str, Record]:
    """All records by id."""
    return {record.id: record for record in make_records()}
