"""Digests and nested names of plain data."""

from __future__ import annotations

import hashlib

from duet_vlm.inputs.plain_data import digest, flattened


def test_a_digest_is_that_of_the_data_as_json() -> None:
    assert digest([1, "a"]) == hashlib.sha256(b'[1, "a"]').hexdigest()
    assert digest({"b": 1, "a": 2}, sort_keys=True) == digest({"a": 2, "b": 1})


def test_nested_names_stand_in_one_row() -> None:
    assert flattened({"a": {"b": 1, "c": {"d": None}}, "e": [2]}) == {"a.b": 1, "a.c.d": None, "e": [2]}
    assert flattened({}) == {}
