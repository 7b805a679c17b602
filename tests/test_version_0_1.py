"""What version 0.1.0 wrote is refused by a line that names the description of its conversion, after which it loads."""

import json
import re
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from flax_transformer.config import ModelConfig, OptimizerConfig, TrainConfig, from_dict, to_dict
from flax_transformer.errors import UserError
from flax_transformer.interop.export import load_export, save_export
from flax_transformer.interop.state_dict import get_weights
from flax_transformer.nn.models import create_model

MODEL = ModelConfig(architecture="classifier", d_model=8, num_heads=2, d_ff=16, num_encoder_layers=1)
OLD_NAMES = {".up_proj.": ".expand.", ".down_proj.": ".contract."}
CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


@pytest.fixture
def old_export(tmp_path: Path) -> Path:
    """An export with the weight names of 0.1.0."""
    folder = tmp_path / "export"
    save_export(folder, create_model(MODEL, seed=3))
    file = folder / "model.safetensors"
    weights = load_file(file)
    for new, old in OLD_NAMES.items():
        weights = {name.replace(new, old): weight for name, weight in weights.items()}
    assert any(".expand." in name for name in weights)
    save_file(weights, file)
    return folder


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [("optimizer", "clip_norm", "max_grad_norm"), ("", "accumulation", "gradient_accumulation_steps")],
)
def test_a_renamed_field_is_named_with_its_new_name(section: str, old: str, new: str):
    values = json.loads(json.dumps(to_dict(TrainConfig(optimizer=OptimizerConfig(max_grad_norm=2.0)))))
    owner = values[section] if section else values
    owner[old] = owner.pop(new)
    with pytest.raises(UserError, match=f"'{old}' of version 0.1.0 is now called '{new}'.*CHANGELOG.md"):
        from_dict(TrainConfig, values)
    owner[new] = owner.pop(old)
    assert from_dict(TrainConfig, values).optimizer.max_grad_norm == 2.0


def test_an_old_export_is_refused_by_both_twins(old_export: Path):
    with pytest.raises(UserError, match=r"names of version 0\.1\.0; CHANGELOG\.md says how to convert"):
        load_export(old_export)
    torch_reference = pytest.importorskip("torch_reference")
    with pytest.raises(UserError, match=r"names of version 0\.1\.0; CHANGELOG\.md says how to convert"):
        torch_reference.load(old_export)


def test_the_conversion_in_the_changelog_works(old_export: Path):
    program = re.findall(r"```python\n(.*?)```", CHANGELOG.read_text(encoding="utf-8"), re.DOTALL)[0]
    program = "\n".join(line.removeprefix("  ") for line in program.splitlines())
    assert '"DIR/model.safetensors"' in program
    exec(program.replace('"DIR/model.safetensors"', repr(str(old_export / "model.safetensors"))), {})
    weights, expected = (get_weights(model) for model in (load_export(old_export), create_model(MODEL, seed=3)))
    assert weights.keys() == expected.keys()
    assert all((weights[name] == expected[name]).all() for name in expected)
