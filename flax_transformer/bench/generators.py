"""What ``bench generate`` times: the twins, and the engines that serve their weights, each with the same ones."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from flax_transformer.bench.records import thread_count
from flax_transformer.bench.worker import Candidate
from flax_transformer.config import GenerationConfig, ModelConfig, PredictionConfig

Tokens = Int[np.ndarray, "batch tokens"]


class Generator(Candidate):
    """A model, and how it generates.

    Args:
        config: of the model.
        folder: an export with its weights.
    """

    def __init__(self, config: ModelConfig, folder: Path) -> None:
        self.config = config
        self._load(folder)

    def _load(self, folder: Path) -> None:
        raise NotImplementedError

    def set_shape(self, batch: int, source_length: int, new_tokens: int) -> None:
        shape = (batch, source_length)
        self._source = np.random.default_rng(0).integers(3, self.config.source_vocab_size, shape).astype(np.int32)
        self._settings = GenerationConfig(max_new_tokens=new_tokens, min_new_tokens=new_tokens)

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        raise NotImplementedError

    def outputs(self) -> Tokens:
        """What it generates for the sources that are timed."""
        return self.generate(self._source, self._settings)

    def time(self, steps: int) -> tuple[float, float]:
        """Seconds of all calls. Results are read, so the host is free no earlier than all is done."""
        start = time.perf_counter()
        for _ in range(steps):
            tokens = self.outputs()
        seconds = time.perf_counter() - start
        assert tokens.shape == (len(self._source), self._settings.max_new_tokens)
        assert not np.any(tokens == self.config.eos_id)
        return seconds, seconds


class Flax(Generator):
    def _load(self, folder: Path) -> None:
        from flax_transformer.decoding.generate import generate
        from flax_transformer.interop.export import load_export
        from flax_transformer.runtime import keep_freed_memory

        keep_freed_memory()  # as the command line does
        self._generate: Any = generate
        self._model = load_export(folder)

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        lengths = np.full(len(source), source.shape[1], np.int32)
        return np.asarray(self._generate(self._model, source, lengths, settings).tokens)


class Torch(Generator):
    """The PyTorch twin."""

    def _load(self, folder: Path) -> None:
        import torch

        from torch_reference.decoding.generate import generate
        from torch_reference.interop.export import load_export

        self._generate, self._torch = generate, torch
        self._model: Any = load_export(folder)

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        lengths = self._torch.full((len(source),), source.shape[1])
        return self._generate(self._model, self._torch.tensor(source), lengths, settings).tokens.numpy()


class Naive(Torch):
    """The PyTorch twin without a cache: for every token the decoder runs over the whole prefix."""

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        torch, model = self._torch, self._model
        ids, lengths = torch.tensor(source), torch.full((len(source),), source.shape[1])
        with torch.inference_mode():
            memory = model.decoder.project_memory(model.encode(ids, lengths), lengths)
            target = torch.full((len(source), 1), self.config.bos_id)
            for _ in range(settings.max_new_tokens):
                logits = model.decode(target, memory, lengths)[0][:, -1]
                logits[:, self.config.eos_id] = -torch.inf
                target = torch.cat([target, logits.argmax(dim=-1, keepdim=True)], dim=1)
        return target[:, 1:].numpy()


class HuggingFace(Generator):
    """The class of transformers for such a model, with its own ``generate``."""

    def _load(self, folder: Path) -> None:
        import torch
        import transformers

        from flax_transformer.interop.export import WEIGHTS_FILE
        from flax_transformer.interop.huggingface.exporting import save_huggingface
        from flax_transformer.interop.state_dict import read_weights

        self._torch, self._transformers = torch, transformers
        with tempfile.TemporaryDirectory() as parent:
            theirs, limits = Path(parent, "theirs"), PredictionConfig(self.config.max_length, self.config.max_length)
            save_huggingface(theirs, self.config, read_weights(folder / WEIGHTS_FILE), None, (), limits)
            self._model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(theirs).eval()

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        tokens = self._torch.tensor(source, dtype=self._torch.long)
        theirs = self._transformers.GenerationConfig(
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=settings.min_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self.config.pad_id,
            eos_token_id=self.config.eos_id,
            decoder_start_token_id=self.config.bos_id,
        )
        with self._torch.inference_mode():
            output = self._model.generate(
                tokens, attention_mask=self._torch.ones_like(tokens), generation_config=theirs
            )
        return output[:, 1:].numpy()


class CTranslate2(Generator):
    """The export for CTranslate2, with the spelling of tokens that its interface asks for."""

    compute_type = "float32"

    def _load(self, folder: Path) -> None:
        import ctranslate2

        from flax_transformer.interop.ctranslate2_export import save_ctranslate2, token_names
        from flax_transformer.interop.export import WEIGHTS_FILE
        from flax_transformer.interop.state_dict import read_weights

        with tempfile.TemporaryDirectory() as parent:
            served = Path(parent, "served")
            save_ctranslate2(served, self.config, read_weights(folder / WEIGHTS_FILE))
            threads = {"inter_threads": 1, "intra_threads": thread_count()}
            self._translator = ctranslate2.Translator(str(served), compute_type=self.compute_type, **threads)
        self._names = token_names(self.config.source_vocab_size)
        self._ids = {name: i for i, name in enumerate(token_names(self.config.target_vocab_size))}

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        results = self._translator.translate_batch(
            [[self._names[token] for token in row] for row in source.tolist()],
            beam_size=1,
            max_decoding_length=settings.max_new_tokens,
            min_decoding_length=settings.min_new_tokens,
            max_input_length=0,  # no limit
        )
        return np.array([[self._ids[name] for name in result.hypotheses[0]] for result in results])


class CTranslate2Int8(CTranslate2):
    """The same with matrix products of 8 bits."""

    compute_type = "int8"


class OnnxRuntime(Generator):
    """The graphs for ONNX Runtime, in the loop that docs/PRETRAINED.md shows."""

    def _load(self, folder: Path) -> None:
        import onnxruntime

        from flax_transformer.interop.export import WEIGHTS_FILE
        from flax_transformer.interop.onnx_export import save_onnx
        from flax_transformer.interop.state_dict import read_weights

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count()
        with tempfile.TemporaryDirectory() as parent:
            served = Path(parent, "served")
            save_onnx(served, self.config, read_weights(folder / WEIGHTS_FILE))
            sessions: list[Any] = [
                onnxruntime.InferenceSession(served / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
                for name in ("encoder", "decoder")
            ]
        self._encoder, self._decoder = sessions

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        lengths = np.full(len(source), source.shape[1], np.int64)
        memory = self._encoder.run(None, {"source": source.astype(np.int64), "source_lengths": lengths})
        names = [output.name for output in self._encoder.get_outputs()]
        state = {"source_lengths": lengths, **dict(zip(names, memory, strict=True))}
        caches = [entry for entry in self._decoder.get_inputs() if entry.name.startswith("cache.")]
        for entry in caches:
            state[entry.name] = np.zeros((len(source), entry.shape[1], 0, entry.shape[3]), np.float32)
        tokens = np.full((len(source), 1), self.config.bos_id, np.int64)
        for _ in range(settings.max_new_tokens):
            logits, *grown = self._decoder.run(None, {"target": tokens[:, -1:], **state})
            state |= {entry.name: cache for entry, cache in zip(caches, grown, strict=True)}
            logits[:, -1, self.config.eos_id] = -np.inf
            tokens = np.append(tokens, logits[:, -1].argmax(axis=-1)[:, None], axis=1)
        return tokens[:, 1:]
