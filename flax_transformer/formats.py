"""Which program an export is for. No framework is loaded, as where a model is deployed."""

from pathlib import Path

from flax_transformer.errors import UserError

# A file that only an export for another program has -> the program.
_OTHERS = {"*.onnx": "ONNX Runtime", "model.bin": "CTranslate2", "tokenizer_config.json": "transformers"}


def require_own_format(folder: Path) -> None:
    """Raises :class:`UserError` for a folder that another program reads, which has a config.json as well."""
    for sign, program in _OTHERS.items():
        if any(folder.glob(sign)):
            advice = "import it" if program == "transformers" else "take the run or the export that it was made from"
            raise UserError(
                f"{folder}: expected a run, or an export that both twins load, got one for {program}; {advice}"
            )
