"""A trained model in the layout of a PyTorch tutorial (bentrevett/pytorch-seq2seq): logits and outputs of its own code.

The package annalog has it: SMILES to SMILES, 3 + 3 layers of width 256, learned positions, post-LN, three tables.
"""

import dataclasses
import importlib
import importlib.util
import pickletools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hf_models import flax_twin, torch_twin
from twins import STACK, ulps

from flax_transformer.config import GenerationConfig, ModelConfig
from flax_transformer.decoding import generate as flax_generate
from torch_reference.decoding import generate as torch_generate

PACKAGE = importlib.util.find_spec("annalog")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="needs the weights: pip install --no-deps annalog==1.0.6"),
]
MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "CC(=O)Nc1ccc(O)cc1",
    "CN1CCC[C@H]1c1cccnc1",
    "O=C(O)c1ccccc1Cl",
]
CONFIG = ModelConfig(
    d_model=256,
    num_heads=8,
    d_ff=512,
    norm_first=False,
    final_norm=False,
    activation="relu",
    positions="learned",
    tie_embeddings="none",
    max_length=102,
    source_vocab_size=59,
    target_vocab_size=59,
    pad_id=1,
    bos_id=2,
    eos_id=3,
    attention_backend="xla",
)
# Their names of a weight -> ours.
RENAMED = {
    r"encoder\.tok_embedding": "source_table",
    r"decoder\.tok_embedding": "target_table",
    r"encoder\.pos_embedding\.weight": "source_embedding.positions.table",
    r"decoder\.pos_embedding\.weight": "target_embedding.positions.table",
    r"decoder\.fc_out": "projection",
    r"self_attn_layer_norm": "self_attention_residual.norm",
    r"enc_attn_layer_norm": "cross_attention_residual.norm",
    r"ff_layer_norm": "feed_forward_residual.norm",
    r"encoder_attention": "cross_attention",
    r"fc_q": "query",
    r"fc_k": "key",
    r"fc_v": "value",
    r"fc_o\b": "output",
    r"positionwise_feedforward\.fc_1": "feed_forward.up_proj",
    r"positionwise_feedforward\.fc_2": "feed_forward.down_proj",
}


@dataclasses.dataclass(frozen=True)
class Annalog:
    """Their model, their search and their fields, and the weights under our names."""

    model: Any
    search: Any
    field: Any
    weights: dict[str, np.ndarray]

    def ids(self, molecule: str) -> list[int]:
        return [
            CONFIG.bos_id,
            *(self.field.vocab.stoi[token] for token in self.field.tokenize(molecule)),
            CONFIG.eos_id,
        ]

    def beam(self, molecule: str, width: int) -> list[tuple[str, float]]:
        return self.search.get_sim_smiles_decoding(
            molecule, self.field, self.field, self.model, "cpu", 102, width, 1.0, generation_method="beam"
        )

    def spelled(self, tokens: list[int]) -> str:
        return "".join(self.field.vocab.itos[token] for token in tokens)


@pytest.fixture(scope="module")
def annalog() -> Any:
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    folder = Path(PACKAGE.origin).parent / "ckpt_and_vocab"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("rdkit", "partialsmiles"):  # which its search takes to leave out what is no molecule; not here
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setattr(sys.modules["rdkit"], "Chem", None, raising=False)
        handler = importlib.import_module("annalog.model_handler")
        search = importlib.import_module("annalog.model_files.multi_gen_final")
    layers = handler.seq2seq_attention
    # The vocabulary is a pickle, which is looked through and not run.
    content = (folder / "stereo_experiment_vocab_ttf.pkl").read_bytes()
    names = [value for code, value, _ in pickletools.genops(content) if "UNICODE" in code.name]
    tokens = names[names.index("itos") + 1 : names.index("stoi")]
    assert tokens[:4] == ["<unk>", "<pad>", "<sos>", "<eos>"]
    field = handler.SimpleField(handler.vocabulary.SMILESTokenizer().tokenize)
    field.vocab = handler.SimpleVocab(tokens, {token: number for number, token in enumerate(tokens)})
    sizes = (len(tokens), 256, 3, 8, 512, 0.1, "cpu", 102)
    model = layers.Seq2Seq(layers.Encoder(*sizes), layers.Decoder(*sizes), CONFIG.pad_id, CONFIG.pad_id, "cpu").eval()
    state = torch.load(folder / "Lev_extended.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    return Annalog(model, search, field, {renamed(name): weight.numpy() for name, weight in state.items()})


def renamed(name: str) -> str:
    for pattern, ours in RENAMED.items():
        name = re.sub(pattern, ours, name)
    return name


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = np.full((len(rows), lengths.max()), CONFIG.pad_id, np.int32)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = values
    return ids, lengths


def test_logits_are_those_of_its_own_code(annalog: Annalog):
    source, source_lengths = padded([annalog.ids(molecule) for molecule in MOLECULES])
    target, lengths = padded([annalog.ids(molecule)[:-1] for molecule in MOLECULES[::-1]])
    with torch.no_grad():
        expected, _ = annalog.model(torch.tensor(source).long(), torch.tensor(target).long())
        arrays = source, target, source_lengths, lengths
        of_torch = torch_twin(CONFIG, annalog.weights)(*map(torch.tensor, arrays)).numpy()
        wrong = dataclasses.replace(CONFIG, scale_embeddings=False)
        mistaken = torch_twin(wrong, annalog.weights)(*map(torch.tensor, arrays)).numpy()
    of_flax = np.asarray(flax_twin(CONFIG, annalog.weights)(*map(jnp.asarray, arrays)))
    real = np.arange(target.shape[1]) < lengths[:, None]
    for logits in (of_torch, of_flax):
        assert ulps(logits[real], expected.numpy()[real]) <= STACK
    assert ulps(mistaken[real], expected.numpy()[real]) > 2 * STACK


@pytest.mark.parametrize("width", [1, 4])
def test_it_generates_what_its_own_code_generates(annalog: Annalog, width: int):
    source, lengths = padded([annalog.ids(molecule) for molecule in MOLECULES])
    strategy = "greedy" if width == 1 else "beam"
    config = GenerationConfig(101, strategy=strategy, beam_width=width, length_alpha=0.0, early_stopping=False)
    best = [annalog.beam(molecule, width)[0] for molecule in MOLECULES]
    expected = [molecule for molecule, _ in best]
    assert len(set(expected)) == len(MOLECULES)
    of_flax = flax_generate.generate(flax_twin(CONFIG, annalog.weights), source, lengths, config)
    of_torch = torch_generate.generate(
        torch_twin(CONFIG, annalog.weights), torch.tensor(source), torch.tensor(lengths), config
    )
    assert [annalog.spelled(row) for row in flax_generate.read_tokens(of_flax)] == expected
    assert [annalog.spelled(row) for row in torch_generate.read_tokens(of_torch)] == expected
    assert np.allclose(np.asarray(of_flax.scores), [score for _, score in best], atol=1e-4)
