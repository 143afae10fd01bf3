"""What a checkpoint was made with, so that a resumed run is the run that was interrupted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DuetError
from ..inputs.plain_data import digest, flattened
from .settings import FREE, TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FILE = "duet_train.json"
NAME = re.compile(r"checkpoint-(\d+)")


def stamp(settings: TrainSettings, model_config: PreTrainedConfig, data: str, processes: int) -> dict[str, Any]:
    """Plain data on everything that the losses of a run depend on.

    Args:
        settings: of the run; those that may change are left out.
        model_config: of the model.
        data: digest of the records trained on.
        processes: how many train together.
    """
    return {
        "settings": settings.model_dump(mode="json", exclude=FREE),
        "model": model_fingerprint(model_config),
        "data": data,
        "processes": processes,
    }


def model_fingerprint(model_config: PreTrainedConfig) -> str:
    """A model's shape and kind, in short; neither its name nor its compression counts."""
    data = {k: v for k, v in model_config.to_dict().items() if k not in ("duet", "_name_or_path")}
    return f"{model_config.model_type}-{digest(_stripped(data), sort_keys=True, default=str)[:16]}"


def last_checkpoint(output: Path) -> Path | None:
    """The one with the most steps."""
    checkpoints = [
        (int(match[1]), path) for path in output.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))
    ]
    return max(checkpoints)[1] if checkpoints else None


def check_checkpoint(checkpoint: Path, stamp: dict[str, Any]) -> None:
    """Refuse a checkpoint that this run did not write.

    Raises:
        ValueError: another model, other data, settings or number of processes, or no checkpoint of `duet train`.
    """
    quoted = repr(str(checkpoint))
    try:
        then = json.loads((checkpoint / FILE).read_text(encoding="utf-8"))
        known = then.keys() >= stamp.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise DuetError(f"checkpoint {quoted} was not written by duet train: choose another output folder.") from error
    if not known:
        raise DuetError(f"checkpoint {quoted} was not written by this duet train: choose another output folder.")
    if then["model"] != stamp["model"]:
        raise DuetError(
            f"checkpoint {quoted} belongs to another model ({then['model']}, not {stamp['model']}): give the model it "
            "was made with, or another output folder."
        )
    for name, value in flattened(stamp["settings"]).items():
        before = flattened(then["settings"]).get(name)
        if before != value:
            raise DuetError(
                f"checkpoint {quoted} was made with {name} {before!r} and the config says {value!r}: change it back, "
                "or start anew in another output folder."
            )
    if then["data"] != stamp["data"]:
        raise DuetError(
            f"checkpoint {quoted} was made with other records: restore the data it was made with, or start anew in "
            "another output folder."
        )
    if then["processes"] != stamp["processes"]:
        raise DuetError(
            f"checkpoint {quoted} was made by {then['processes']} processes and now there are {stamp['processes']}: "
            f"start {then['processes']}, or start anew in another output folder."
        )


def _stripped(data: Any) -> Any:
    # what loading and saving change without changing the model
    passing = {"transformers_version", "dtype", "torch_dtype", "architectures", "use_cache", "bos_token_id",
               "eos_token_id", "pad_token_id"}  # fmt: skip
    if isinstance(data, dict):
        return {k: _stripped(v) for k, v in data.items() if k not in passing}
    return data
