"""A sequence-to-sequence model in PyTorch with four faults, each of which can be fixed: see walkthrough.py."""

import torch
from torch import nn

BOS, VOCAB, WIDTH, LONGEST = 1, 16, 48, 32


class Repeater(nn.Module):
    """``fixed`` names what has been fixed so far: "memory mask", "teacher forcing", "causal mask", "positions"."""

    def __init__(self, fixed: frozenset[str]) -> None:
        super().__init__()
        self.fixed = fixed
        self.source_table = nn.Embedding(VOCAB, WIDTH)
        self.target_table = nn.Embedding(VOCAB, WIDTH)
        self.positions = nn.Embedding(LONGEST, WIDTH)
        self.transformer = nn.Transformer(WIDTH, 4, 1, 1, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.projection = nn.Linear(WIDTH, VOCAB)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Ids (rows, source) and (rows, target) -> logits (rows, target, vocab)."""
        if "teacher forcing" not in self.fixed:
            target = torch.full_like(target, BOS)
        x, y = self.source_table(source), self.target_table(target)
        x = x + self.positions(torch.arange(source.shape[1]))
        if "positions" in self.fixed:
            y = y + self.positions(torch.arange(target.shape[1]))
        source_mask = nn.Transformer.generate_square_subsequent_mask(source.shape[1])
        target_mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        hidden = self.transformer(
            x,
            y,
            tgt_mask=target_mask if "causal mask" in self.fixed else None,
            memory_mask=None if "memory mask" in self.fixed else source_mask,
        )
        return self.projection(hidden)


def make(fixed: frozenset[str]) -> Repeater:
    torch.manual_seed(0)
    return Repeater(fixed)


def train(model: Repeater, batches: list[tuple]) -> list[float]:
    """The loss of every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for source, target in batches:
        source, target = torch.from_numpy(source), torch.from_numpy(target)
        logits = model(source, target[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def predict(model: Repeater, source) -> torch.Tensor:
    """Greedily, token by token; filled up to the length that a square memory mask wants."""
    model.eval()
    source = torch.from_numpy(source)
    ids = torch.full_like(source, BOS)
    for step in range(source.shape[1]):
        tokens = model(source, ids)[:, step].argmax(-1)
        if step + 1 < source.shape[1]:
            ids[:, step + 1] = tokens
    return torch.cat([ids[:, 1:], tokens[:, None]], dim=1)
