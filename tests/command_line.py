"""The command line as the shell calls it, and the flags of a tiny run."""

from pathlib import Path

import pytest

from flax_transformer.cli import main as cli

TINY = [
    *("--model.d-model", "8", "--model.num-heads", "2", "--model.d-ff", "12"),
    *("--model.num-encoder-layers", "1", "--model.num-decoder-layers", "1"),
    *("--tokenizer.vocab-size", "300", "--batch.buckets", "1", "--batch.size", "16"),
]


def run_command(*arguments: str | Path) -> int:
    """The exit code, as the shell sees it."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)


def error_line(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command that must fail says, which is one line."""
    capsys.readouterr()
    assert run_command(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]
