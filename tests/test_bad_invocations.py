"""A sample of the commands of bad_invocations, of every group; and that what it looks for is seen."""

from pathlib import Path

import pytest
from bad_invocations import cases
from bad_invocations.case import Case
from bad_invocations.files import make_files
from bad_invocations.running import GOOD, run

from flax_transformer.cli import main as cli

SAMPLE = [case for case in cases() if not case.apart][::16]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("commands").resolve()
    make_files(path)
    return path


def test_there_are_hundreds_of_commands_and_a_sample_of_most_groups():
    everything = list(cases())
    assert len(everything) > 300
    assert len({(case.arguments, case.stdin, tuple(case.environment.items())) for case in everything}) == len(
        everything
    )
    assert len(SAMPLE) >= 25
    assert len({case.group for case in SAMPLE}) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: " ".join(case.arguments)[:60])
def test_a_command_that_cannot_be_right_is_refused_in_one_line(folder: Path, case: Case):
    outcome = run(case, folder)
    assert outcome.kind in GOOD, outcome.said


def test_bad_ends_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path.resolve()
    (folder / "taken").write_text("precious", encoding="utf-8")

    def end_with(what: object) -> str:
        def command(_: list[str]) -> int:
            if isinstance(what, BaseException):
                raise what
            if isinstance(what, Path):
                what.write_text("changed", encoding="utf-8")
                raise cli.UserError("refused, but too late")
            return 0

        with monkeypatch.context() as patch:
            patch.setattr("flax_transformer.cli.predict.predict", command)
            return run(Case("planted", ("predict", "run", "x")), folder).kind

    assert end_with(None) == "SUCCEEDED"
    assert end_with(TypeError("of our own")) == "TRACEBACK"
    assert end_with(SystemExit(139)) == "KILLED"
    assert end_with(cli.UserError("as it should be")) == GOOD[0]
    assert end_with(cli.UserError("of\ntwo lines")) == "SEVERAL LINES"
    assert end_with(folder / "new file") == "CHANGED FILES"
    taken = (folder / "taken").read_bytes()
    assert end_with(folder / "taken") == "CHANGED FILES"
    (folder / "taken").write_bytes(taken)
