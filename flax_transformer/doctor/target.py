"""What ``flax-transformer doctor TARGET`` names: a factory in a file, a Hugging Face folder, a run or an export."""

import contextlib
import functools
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from flax_transformer.config import GenerationConfig, load_json
from flax_transformer.doctor.subject import ExaminationError
from flax_transformer.errors import UserError

_EXPECTED = "expected FILE.py:FACTORY, a folder of a Hugging Face model, or a run or export folder"


def load_target(target: str) -> dict[str, Any]:
    """Keywords for :func:`flax_transformer.doctor.examine`.

    A factory takes no arguments and returns a model; a Linen module with its variables; or a dict of keywords for
    ``examine``, such as ``{"model": ..., "forward": ..., "loss": ...}``. It runs code, as only the doctor does.

    Raises:
        UserError: there is no such target, or it is something else.
        ExaminationError: its factory raises.
    """
    path, separator, name = target.rpartition(":")
    if separator and path.endswith(".py"):
        return _from_factory(Path(path), name)
    folder = Path(target)
    if folder.suffix == ".py":
        raise UserError(f"{target}: expected {folder.name}:FACTORY, the function that makes the model")
    if folder.is_file():
        raise UserError(f"{target}: is a file; {_EXPECTED}")
    if not folder.is_dir():
        raise UserError(f"{target}: there is no such folder; {_EXPECTED}")
    if not (folder / "config.json").is_file():
        raise UserError(f"{target}: there is no config.json in it; {_EXPECTED}")
    config = load_json(folder / "config.json", "a config in JSON")
    if isinstance(config, dict) and "model_type" in config:
        return _from_hugging_face(folder, config)
    return _from_own(folder)


def _from_own(folder: Path) -> dict[str, Any]:
    """A run or an export of this project: in JAX where that is installed, else in PyTorch."""
    if importlib.util.find_spec("jax") is not None:
        import flax_transformer as package

        model: Any = package.load(folder).best_model()
    else:
        import torch_reference as package

        model = package.load(folder)
    keywords = {"model": model, "fresh": False, "kind": "encoder"}
    if model.config.architecture == "seq2seq":
        keywords["kind"] = "seq2seq"
        keywords["generate"] = functools.partial(_own_greedy, package.generate)
    return keywords


def _own_greedy(generate: Callable[..., Any], model: Any, ids: Any, steps: int) -> Any:
    """As a model of this project is asked to."""
    return generate(model, ids, config=GenerationConfig(steps)).tokens


def _from_factory(file: Path, name: str) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file}: there is no such file; {_EXPECTED}")
    # What foreign code prints must not get into a report that is piped.
    with contextlib.redirect_stdout(sys.stderr):
        module = _import(file)
        factory = getattr(module, name, None)
        if factory is None:
            near = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
            raise UserError(f"{file}: there is no {name!r} in it; there is {', '.join(near[:8]) or 'nothing callable'}")
        if not callable(factory):
            raise UserError(f"{file}:{name}: expected a function that returns the model, got {type(factory).__name__}")
        _check_no_arguments(factory, f"{file}:{name}")
        made = _call(factory, f"{file}:{name}")
    return _as_keywords(made, f"{file}:{name}")


def _import(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"doctor_target_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look a class's module up
    sys.path.insert(0, str(file.parent.resolve()))  # as python FILE.py would
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # leave no __pycache__ beside it
    try:
        _call(lambda: spec.loader.exec_module(module), str(file))  # type: ignore[union-attr]
    finally:
        sys.dont_write_bytecode = writes_bytecode
        sys.path.remove(str(file.parent.resolve()))
    return module


def _call(function: Any, where: str) -> Any:
    try:
        return function()
    except ImportError as error:
        hint = "; name a file outside its package that imports it" if "relative import" in str(error) else ""
        raise UserError(f"{where}: {error}{hint}") from error
    except SyntaxError as error:
        raise UserError(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error).strip().splitlines()
        at = f"{Path(last.filename).name}, line {last.lineno}"
        raise ExaminationError(f"{where} raised {type(error).__name__}: {text[0] if text else ''} ({at})") from error


def _check_no_arguments(factory: Any, where: str) -> None:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise UserError(
            f"{where}: needs {', '.join(needed)}; name a function without arguments, such as def make(): return ..."
        )


def _as_keywords(made: Any, where: str) -> dict[str, Any]:
    if isinstance(made, Mapping) and "model" in made:
        from flax_transformer.doctor.examine import examine

        allowed = set(inspect.signature(examine).parameters)
        unknown = set(map(str, made)) - allowed
        if unknown:
            raise UserError(
                f"{where}: returned {', '.join(sorted(unknown))}; examine takes {', '.join(sorted(allowed))}"
            )
        return dict(made)
    if isinstance(made, tuple) and len(made) == 2:
        if not isinstance(made[1], Mapping):
            words = f"({', '.join(type(part).__name__ for part in made)})"
            raise UserError(f"{where}: expected it to return a model, or a Linen module and its variables, got {words}")
        return {"model": made[0], "variables": made[1]}
    if isinstance(made, type):
        raise UserError(f"{where}: expected it to return a model, got the class {made.__name__}")
    if not callable(made) and not hasattr(made, "apply"):
        raise UserError(f"{where}: expected it to return a model, got {type(made).__name__}")
    return {"model": made}


def _from_hugging_face(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{folder}: is a Hugging Face model; install transformers to examine it")
    import transformers

    settings = _of_transformers(transformers.AutoConfig, folder)
    named = (config.get("architectures") or [None])[0]
    kind = "encoder"
    if getattr(settings, "is_encoder_decoder", False):
        kind, fallback = "seq2seq", transformers.AutoModelForSeq2SeqLM
    elif named is None or "CausalLM" in named or "LMHead" in named:
        kind, fallback = "decoder", transformers.AutoModelForCausalLM
    else:
        fallback = transformers.AutoModel
    cls = getattr(transformers, named, fallback) if named else fallback
    model = _of_transformers(cls, folder, use_safetensors=True)
    keywords = {"model": model, "kind": kind, "fresh": False}
    if kind != "encoder":
        keywords["generate"] = _greedy
    return keywords


def _of_transformers(cls: Any, folder: Path, **settings: Any) -> Any:
    """What a class of transformers reads of a folder. Of what is wrong with it, it raises errors of any class."""
    try:
        return cls.from_pretrained(folder, local_files_only=True, **settings)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: expected a model that transformers can read, but it cannot ({reason})") from error


def _greedy(model: Any, ids: Any, steps: int) -> Any:
    """As a Hugging Face model is asked to."""
    return model.generate(ids, max_new_tokens=steps, do_sample=False, num_beams=1)
