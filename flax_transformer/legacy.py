"""What version 0.1.0 called differently, so that its exports are read. Framework-free: both twins use it."""

from typing import Any

_FIELDS = {"accumulation": "gradient_accumulation_steps", "clip_norm": "max_grad_norm"}
# Files that 0.1.0 wrote as null where none were given; now they are lists.
_OPTIONAL_FILES = ("validation_path", "test_path")
# Before tables could be shared in part.
_TIED = {True: "all", False: "none"}
_WEIGHTS = {".feed_forward.expand.": ".feed_forward.up_proj.", ".feed_forward.contract.": ".feed_forward.down_proj."}


def current_fields(values: Any) -> Any:
    """A config as JSON values, with the fields of 0.1.0 under the names that they have now."""
    if not isinstance(values, dict):
        return values
    return {_FIELDS.get(name, name): _current_value(name, value) for name, value in values.items()}


def _current_value(name: str, value: Any) -> Any:
    if value is None and name in _OPTIONAL_FILES:
        return []
    if name == "tie_embeddings" and isinstance(value, bool):
        return _TIED[value]
    return current_fields(value)


def is_of_old_run(config: dict[str, Any]) -> bool:
    """Whether a run's config, as JSON values, is one of 0.1.0."""
    return "accumulation" in config


def current_weight_name(name: str) -> str:
    """The name of a weight, in PyTorch's form, as it is now."""
    for old, new in _WEIGHTS.items():
        name = name.replace(old, new)
    return name
