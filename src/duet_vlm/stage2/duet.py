"""DUET-VLM's stage 2 (arXiv 2602.18846): what salient words and the last token attend to."""

from __future__ import annotations

from ..config.schedule import Schedule

METHOD = Schedule(name="duet", paper="2602.18846", ratios={"1/2": None, "3/4": None}, order=0)
