"""Traits of models that people write: none of them is an illness, and beside each stands the illness it looks like."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import nn

from flax_transformer import doctor
from flax_transformer.doctor.calling import guess_kind, possible_calls
from torch_reference.nn.models import ModelConfig, create_model

VOCAB, WIDTH, HEADS = 23, 16, 2


class Attention(nn.Module):
    """Scores of shape (rows, heads, length, length), before the softmax handed to ``masked`` as the model does it."""

    def __init__(self, masked: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.masked = masked
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.output = nn.Linear(WIDTH, WIDTH)

    def heads(self, x):
        return x.view(*x.shape[:2], HEADS, -1).transpose(1, 2)

    def keys(self, x):
        return self.heads(self.key(x))

    def scores(self, query, key):
        return query @ key.transpose(2, 3) / key.shape[-1] ** 0.5

    def forward(self, x, mask=None):
        scores = self.scores(self.heads(self.query(x)), self.keys(x))
        if self.masked is not None:
            scores = self.masked(scores)
        elif mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        x = torch.softmax(scores, dim=-1) @ self.heads(self.value(x))
        return self.output(x.transpose(1, 2).flatten(2))


class Decoder(nn.Module):
    """One layer; without a mask of its own it makes one that lets a token see itself and what stands before it."""

    def __init__(self, attention: nn.Module, vocab: int = VOCAB, **table: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.places = nn.Embedding(vocab, WIDTH, **table), nn.Embedding(40, WIDTH)
        self.attention = attention
        self.inner: nn.Module = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, WIDTH))
        self.projection = nn.Linear(WIDTH, vocab)

    def forward(self, ids):
        return self.run(ids, torch.arange(ids.shape[1]), causal(ids.shape[1]))

    def run(self, ids, positions, mask):
        x = self.table(ids) + self.places(positions)
        x = x + self.attention(x, mask)
        return self.projection(x + self.inner(x))


def causal(length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def first_cause(report: doctor.Report) -> str:
    return next((d.result.cause for d in report.diagnoses if d.result.verdict != "advice"), "")


def figures(report: doctor.Report) -> dict[str, Any]:
    return {result.probe: result.figure for result in report.results}


# How the model is called.


def takes(names: str) -> Callable[..., Any]:
    """A function of these parameters, in words of Python."""
    return eval(f"lambda {names}: None")


@pytest.mark.parametrize(
    ("names", "kind", "words"),
    [
        ("src_token_ids_batch, trg_token_ids_batch", "seq2seq", ["source", "target"]),
        ("enc_X, dec_X", "seq2seq", ["source", "target"]),
        ("sources, inputs", "seq2seq", ["source", "target"]),
        ("x, y", "seq2seq", ["source", "target"]),
        ("input_seq, prev_output_tokens", "seq2seq", ["source", "target"]),
        ("input_ids=None, decoder_input_ids=None, token_type_ids=None", "seq2seq", ["source", "target"]),
        ("in_idx", None, ["target"]),
        ("idx, targets=None", None, ["target"]),
        ("x, segment_info", None, ["target", "segments, all 1"]),
        ("last_tokens, positions, cache", None, ["target", "positions", "None"]),
        ("tokens, start_pos", None, ["target", "0"]),
    ],
)
def test_names_of_parameters_say_what_they_take(names: str, kind: str | None, words: list[str]):
    function = takes(names)
    assert guess_kind(function) == kind
    call = next(iter(possible_calls(function, "decoder" if kind is None else "seq2seq")))
    said = [convention.words for convention in call.arguments.values()]
    assert said == words or said == [*words, "the ids, so that all logits come back"]


def test_a_parameter_that_cannot_be_made_up_is_named():
    with pytest.raises(doctor.ExaminationError, match="needs 'image', which the doctor cannot make up"):
        next(possible_calls(takes("ids, image"), "decoder"))


class GivenPositions(Decoder):
    def forward(self, last_tokens, positions, cache, attention_mask):
        assert cache is None
        return self.run(last_tokens, positions, attention_mask)


class GivenMask(Attention):
    def forward(self, x, mask=None):
        assert mask is not None, "the model hands on what it is given"
        return super().forward(x, mask[:, None, None] & causal(x.shape[1]))


def test_positions_masks_and_an_empty_cache_are_made_up():
    report = doctor.examine(GivenPositions(GivenMask(), padding_idx=0), kind="decoder")
    assert not report.is_ill, str(report)
    assert "positions=positions, cache=None" in report.called_as


class Wrapper(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


def test_a_wrapper_is_called_as_what_it_wraps():
    report = doctor.examine(Wrapper(Decoder(Attention())))
    assert report.called_as == "model(ids=target)"
    assert report.kind == "decoder"


class WithoutForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(2, 2), nn.Linear(2, 2)


def test_a_module_without_forward_says_so():
    with pytest.raises(doctor.ExaminationError, match=r"WithoutForward has no forward\(\), so pass forward="):
        doctor.examine(WithoutForward())


class TwoHeads(Decoder):
    def forward(self, ids):
        logits = super().forward(ids)
        return logits[..., :2], logits


def test_which_of_several_outputs_was_taken_is_told():
    report = doctor.examine(TwoHeads(Attention()))
    assert (
        "taken for the logits: (rows, length, 2), and not (rows, length, 23); pass forward= for another" in report.notes
    )


# How scores are masked and scaled.


def by_index(scores):
    upper = torch.triu_indices(scores.shape[-1], scores.shape[-1], 1)
    scores[..., upper[0], upper[1]] = float("-inf")
    return scores


def by_slices(scores):
    for row in range(scores.shape[-2]):
        scores[..., row, row + 1 :] = float("-inf")
    return scores


def by_slices_of_zero(scores):
    for row in range(scores.shape[-2]):
        scores[..., row, row + 1 :] = 0
    return scores


@pytest.mark.parametrize(
    ("masked", "cause"),
    [(by_index, ""), (by_slices, ""), (by_slices_of_zero, "mask-as-zero"), (lambda scores: scores, "no-causal-mask")],
)
def test_masks_written_into_the_scores_are_seen(masked: Callable[..., Any], cause: str):
    report = doctor.examine(Decoder(Attention(masked)), kind="decoder")
    assert first_cause(report) == cause, str(report)
    assert figures(report)["scale"] == pytest.approx(1)


class Fused(Attention):
    """As Bloom and MPT do it: a bias that grows with distance, and the scale within one operation."""

    alpha: float = (WIDTH // HEADS) ** -0.5

    def scores(self, query, key):
        bias = -(torch.arange(key.shape[2])[None] - torch.arange(key.shape[2])[:, None]).abs().to(key)
        scores = torch.baddbmm(bias[None], query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), alpha=self.alpha)
        return scores.view(*key.shape[:3], -1)


class FusedTwice(Fused):
    alpha = Fused.alpha**2


@pytest.mark.parametrize(("attention", "cause"), [(Fused, ""), (FusedTwice, "scale-wrong")])
def test_a_scale_within_a_fused_product_counts(attention: type[Attention], cause: str):
    report = doctor.examine(Decoder(attention()), kind="decoder")
    assert first_cause(report) == cause, str(report)


class Cached(Attention):
    """Keys go through a table that is written in place, as in code that is made to generate."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(16, HEADS, 40, WIDTH // HEADS), persistent=False)

    def keys(self, x):
        self.cache = self.cache.detach().clone()
        self.cache[: len(x), :, : x.shape[1]] = super().keys(x)
        return self.cache[: len(x), :, : x.shape[1]]


class CachedForInference(Decoder):
    @torch.inference_mode()
    def forward(self, tokens, start_pos):
        assert start_pos == 0
        return super().forward(tokens)


def test_keys_that_go_through_a_cache_are_seen():
    report = doctor.examine(CachedForInference(Cached()), kind="decoder")
    assert figures(report)["scale"] == pytest.approx(1)
    found = {result.probe: (result.verdict, result.cause) for result in report.results}
    assert found["state"] == ("warning", "mutates")
    assert found["gradients"] == ("warning", "no-gradient")
    assert not report.is_ill, str(report)


class Remembers(Decoder):
    """Each call moves the positions of the next one on."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__(attention)
        self.register_buffer("offset", torch.zeros((), dtype=torch.long))

    def forward(self, ids):
        self.offset = (self.offset + 1) % 20
        return self.run(ids, torch.arange(ids.shape[1]) + self.offset, causal(ids.shape[1]))


def test_state_that_changes_the_logits_is_ill():
    assert first_cause(doctor.examine(Remembers(Attention()), kind="decoder")) == "mutates"


# What is told by the model itself.


class Classifier(Decoder):
    def forward(self, ids):
        return self.run(ids, torch.arange(ids.shape[1]), None).mean(dim=1)


def test_the_pad_id_is_read_off_the_embedding():
    report = doctor.examine(Classifier(Attention(), padding_idx=3), kind="encoder")
    assert report.facts["pad_id"] == 3
    assert first_cause(report) == "padding-encoder"


class FirstToken(Decoder):
    """Takes the output of the first token for that of the text, as BERT's classifiers do."""

    def forward(self, ids):
        return self.run(ids, torch.arange(ids.shape[1]), None)[:, 0]


class FirstTokenWithoutPositions(Decoder):
    def forward(self, ids):
        return self.run(ids, torch.zeros(ids.shape[1], dtype=torch.long), None)[:, 0]


@pytest.mark.parametrize(("model", "cause"), [(FirstToken, ""), (FirstTokenWithoutPositions, "no-source-positions")])
def test_a_classifier_by_its_first_token_needs_positions_too(model: type[Decoder], cause: str):
    report = doctor.examine(model(Attention()))
    assert report.kind == "encoder"
    assert first_cause(report) == cause, str(report)


class NeverStopsDropping(Decoder):
    def forward(self, ids):
        return nn.functional.dropout(super().forward(ids), 0.1)


def test_a_model_of_an_unknown_kind_that_is_random_says_so():
    assert first_cause(doctor.examine(NeverStopsDropping(Attention()))) == "nondeterministic"


class BehindThePad(Decoder):
    """As RoBERTa counts positions: from behind the pad id, so that a table of 40 rows takes 38 tokens."""

    max_position_embeddings, pad_id = 40, 1

    def forward(self, ids):
        return self.run(ids, torch.arange(ids.shape[1]) + 2, causal(ids.shape[1]))


def test_a_table_that_starts_behind_the_pad_is_no_overrun():
    model = BehindThePad(Attention())
    report = doctor.examine(model, kind="decoder")
    assert not report.is_ill, str(report)
    assert figures(report)["length"] == 38
    assert first_cause(doctor.examine(model, kind="decoder", max_length=40)) == "overrun"


def starting_at_zero(attention: Attention) -> Any:
    model: Any = Decoder(attention)
    for layer in (attention.output, model.inner[2], model.projection):
        nn.init.zeros_(layer.weight)
    return model


def test_what_starts_at_zero_is_examined_as_if_it_had_moved():
    model = starting_at_zero(Attention())
    report = doctor.examine(model, kind="decoder")
    assert not report.is_ill, str(report)
    assert report.notes[-1].endswith("all zero: projection.weight, attention.output.weight, inner.2.weight")
    assert not any(layer.weight.any() for layer in (model.attention.output, model.inner[2], model.projection))
    # Not all that starts at zero is healthy: this attention sees what comes.
    unmasked = starting_at_zero(Attention(lambda scores: scores))
    assert first_cause(doctor.examine(unmasked, kind="decoder")) == "no-causal-mask"


class ReZero(Decoder):
    def __init__(self) -> None:
        super().__init__(Attention())
        self.share = nn.Parameter(torch.zeros(1))

    def run(self, ids, positions, mask):
        x = self.table(ids) + self.places(positions)
        x = x + self.share * self.attention(x, mask)
        return self.projection(x + self.share * self.inner(x))


def test_branches_whose_share_starts_at_zero_are_seen():
    report = doctor.examine(ReZero(), kind="decoder")
    assert not report.is_ill, str(report)


# Positions and heads.


class Float32(nn.Module):
    """Two layers whose weights stay float32, so that equal tokens give logits that are equal but for rounding."""

    def __init__(self, positions: float) -> None:
        super().__init__()
        model = Decoder(Two())
        model.places.weight.data *= positions
        self.held = (lambda: model.float(),)

    def forward(self, ids):
        return self.held[0]()(ids)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Attention(), Attention()

    def forward(self, x, mask):
        return self.second(x + self.first(x, mask), mask)


@pytest.mark.parametrize(("positions", "cause"), [(1, ""), (1e-6, "weak-positions"), (0, "no-target-positions")])
def test_missing_positions_are_seen_through_the_rounding_of_float32(positions: float, cause: str):
    report = doctor.examine(Float32(positions), kind="decoder", vocab_size=VOCAB)
    assert "float32" in report.precision
    found = {result.probe: result.cause for result in report.results}
    assert found["target positions"] == cause, str(report)


@pytest.mark.parametrize(("positions", "cause"), [("sinusoidal", ""), ("none", "no-source-positions")])
def test_positions_count_in_half_precision_too(positions: Literal["sinusoidal", "none"], cause: str):
    config = ModelConfig(
        d_model=32, d_ff=64, num_encoder_layers=2, num_decoder_layers=1, source_vocab_size=40, target_vocab_size=40,
        positions=positions, dtype="bfloat16",
    )  # fmt: skip
    report = doctor.examine(create_model(config), pad_id=0)
    assert "half precision" in report.precision
    assert {r.probe: r.cause for r in report.results}["source positions"] == cause, str(report)


class Head(Attention):
    def forward(self, x, mask=None):
        query, key, value = self.query(x), self.key(x), self.value(x)
        return torch.softmax(query @ key.transpose(1, 2) / WIDTH**0.5, dim=-1) @ value


class Heads(nn.Module):
    """Each head is a module of its own; ``joined`` puts their outputs together."""

    def __init__(self, joined: Callable[..., Any]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head() for _ in range(3))
        self.joined = joined
        self.output = nn.Linear(3 * WIDTH, WIDTH)

    def forward(self, x, mask):
        return self.output(self.joined([head(x) for head in self.heads]).reshape(*x.shape[:2], -1))


@pytest.mark.parametrize(("axis", "cause"), [(2, ""), (1, "heads-mixed")])
def test_heads_of_their_own_are_joined_by_position(axis: int, cause: str):
    model = FirstToken(Heads(lambda heads: torch.stack(heads, dim=axis)))
    report = doctor.examine(model, kind="encoder")
    assert {r.probe: r.cause for r in report.results}["wiring"] == cause, str(report)


class Rounded(Attention):
    """What the heads return is rounded to bfloat16 before it is joined, as under autocast."""

    def forward(self, x, mask=None):
        scores = self.scores(self.heads(self.query(x)), self.keys(x)).masked_fill(~causal(x.shape[1]), -torch.inf)
        heads = (torch.softmax(scores, dim=-1) @ self.heads(self.value(x))).bfloat16()
        return self.output(self.join(heads).to(x))

    def join(self, heads):
        return heads.transpose(1, 2).flatten(2)


class RoundedAndMixed(Rounded):
    def join(self, heads):
        return heads.reshape(len(heads), heads.shape[2], -1)


@pytest.mark.parametrize(("attention", "cause"), [(Rounded, ""), (RoundedAndMixed, "heads-mixed")])
def test_heads_may_be_rounded_while_they_are_joined(attention: type[Attention], cause: str):
    report = doctor.examine(Decoder(attention()), kind="decoder")
    assert {r.probe: r.cause for r in report.results}["wiring"] == cause, str(report)


# Mixtures of experts.


class Mixture(nn.Module):
    """Each token goes to one of many experts; in batches of a few tokens some experts get none."""

    def __init__(self, experts: int, factor: float) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, experts)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(experts))
        self.factor = factor

    def forward(self, x):
        weight, chosen = torch.softmax(self.router(x), dim=-1).max(dim=-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            out[chosen == number] = self.factor * expert(x[chosen == number]) * weight[chosen == number][:, None]
        return out


@pytest.mark.parametrize(("factor", "verdict", "cause"), [(1, "advice", "unused-parameter"), (0, "ill", "no-gradient")])
def test_an_expert_without_tokens_is_no_dead_one(factor: float, verdict: str, cause: str):
    model = Decoder(Attention())
    model.inner = Mixture(30, factor)
    (gradients,) = [r for r in doctor.examine(model, kind="decoder").results if r.probe == "gradients"]
    assert (gradients.verdict, gradients.cause) == (verdict, cause)
