"""What several commands share."""

import contextlib
import functools
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro
from tyro.conf import Positional

from flax_transformer.cli.flags import CONFIG_FLAGS
from flax_transformer.config import BatchConfig, GenerationConfig
from flax_transformer.errors import UserError

if TYPE_CHECKING:
    from flax_transformer.data.copying import CopyRule
    from flax_transformer.data.generation import Constraint
    from flax_transformer.interop.exported import Exported
    from flax_transformer.training.run import Run

PROGRAM = "flax-transformer"
# What only one strategy of generation reads.
_FLAGS_OF = {
    "sample": ("temperature", "top_k", "top_p", "seed"),
    "beam": ("beam_width", "length_penalty", "length_alpha", "early_stopping", "n_best"),
}
# Also under the names that training gives them.
TextColumns = Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--text-column", "--source-column"])]
Flags = TypeVar("Flags", bound="RunFlags")
Result = TypeVar("Result")


@dataclass(frozen=True)
class RunFlags:
    """What evaluate and predict have in common."""

    run: Positional[Path]
    """folder of the run"""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """hold outputs to the JSON schema of the run's task, so that every one of them parses"""
    schema: Path | None = None
    """a file with a JSON schema to hold outputs to"""
    copying: bool = True
    """let values that the schema of the task, or the file's, marks as copied only quote the text: whole words of it"""
    batch_size: int = BatchConfig.size
    """texts at a time"""
    generation: Annotated[GenerationConfig, tyro.conf.arg(name="")] = field(default_factory=GenerationConfig)


def load_run(
    kind: type[Flags], name: str, description: str | None, arguments: Sequence[str]
) -> tuple["Run | Exported", Flags]:
    """The run comes first and is looked up first, since it gives the defaults of other flags."""
    folder = next(iter(arguments), "--help")
    run, defaults = None, dict[str, Any](run=tyro.MISSING)
    if folder not in ("-h", "--help"):
        from flax_transformer.training.run import load_trained

        if folder.startswith("-"):
            raise UserError(f"expected the folder of a run before all flags, got {folder}")
        run = load_trained(Path(folder))
        limits = run.prediction_config
        defaults |= {"batch_size": limits.batch_size, "generation": GenerationConfig(limits.max_new_tokens)}
    parsed: Any = parse(
        kind,
        default=kind(**defaults),
        prog=f"{PROGRAM} {name}",
        description=description,
        args=arguments or ["--help"],
        registry=CONFIG_FLAGS,
    )
    assert run is not None, "--help has ended the program"
    flags = replace(parsed, generation=parsed.generation.build())
    is_changed = flags.json or flags.schema or flags.generation != defaults["generation"]
    architecture = run.model_config.architecture
    if is_changed and architecture != "seq2seq":
        what = "a classifier" if architecture == "classifier" else "a model of masked tokens"
        raise UserError(f"{folder}: expected no flags of generation, since it is {what}")
    _check_strategy(flags.generation)
    return run, flags


def _check_strategy(generation: GenerationConfig) -> None:
    """Raises :class:`UserError` for a flag that another strategy than the chosen one reads."""
    default = GenerationConfig(generation.max_new_tokens)
    for strategy, names in _FLAGS_OF.items():
        changed = [name for name in names if getattr(generation, name) != getattr(default, name)]
        if changed and strategy != generation.strategy:
            flag = f"--{changed[0].replace('_', '-')}"
            raise UserError(f"{flag}: expected --strategy {strategy} too, got {generation.strategy}, which ignores it")


def load_rules(run: "Run | Exported", flags: RunFlags) -> tuple["Constraint | None", "CopyRule | None"]:
    """What outputs may look like, and which of their values only quote the text."""
    from flax_transformer.data.constraint import json_constraint, read_schema
    from flax_transformer.data.copying import CopyRule
    from flax_transformer.data.tasks import TASKS

    task = run.prediction_config.task
    if not (flags.json or flags.schema):
        return None, run.copy_rule if flags.copying else None
    schema = read_schema(flags.schema) if flags.schema else task and TASKS[task].schema
    if not schema:
        raise UserError(f"--json: {flags.run} does not know the JSON of its outputs; give it with --schema FILE")
    return json_constraint(schema, run.tokenizer), CopyRule(schema, run.tokenizer) if flags.copying else None


def parse(kind: Callable[..., Result], **settings: Any) -> Result:
    """As ``tyro.cli``, but a mistake is one line as any other.

    Raises:
        UserError: the arguments are not those of ``kind``.
    """
    return _in_one_line(functools.partial(tyro.cli, kind), **settings)


def parse_subcommand(kinds: Mapping[str, Callable[..., Result]], **settings: Any) -> Result:
    """As :func:`parse`, of the one of several commands that the arguments begin with."""
    return _in_one_line(functools.partial(tyro.extras.subcommand_cli_from_dict, dict(kinds)), **settings)


def _in_one_line(read: Callable[..., Result], **settings: Any) -> Result:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return read(**settings)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        # Without the frame and its title, the help text of the flag, and the way to --help.
        text = re.sub(r"[\u2500-\u257f]|-{3,}", " ", said.getvalue().strip().partition("\n")[2])
        text = " ".join(re.split(r"Argument helptext:|For full helptext|Similar", text)[0].split())
        raise UserError(f"{text.rstrip('.')}; {settings['prog']} --help explains all flags") from end


def deferred(function: Callable[..., Result]) -> Callable[..., Callable[[], Result]]:
    """The function with its arguments, to be called once they are all read: what it says itself is not to be caught."""

    @functools.wraps(function)
    def bound(*arguments: Any, **named: Any) -> Callable[[], Result]:
        return functools.partial(function, *arguments, **named)

    return bound


def first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name:<16}{text}" for name, text in rows]
