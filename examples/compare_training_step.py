"""Take the same training steps in JAX and in PyTorch: ``python examples/compare_training_step.py`` (half a minute).

Needs ``pip install ".[train,torch]"``.
"""

import numpy as np
import torch

from flax_transformer import ModelConfig, OptimizerConfig, TrainConfig, to_torch_state_dict
from flax_transformer.data.batches import Seq2SeqBatch
from flax_transformer.training.step import TrainStep as FlaxTrainStep
from torch_reference.training.step import TrainStep as TorchTrainStep

STEPS = 3


def random_batch(model: ModelConfig, rows: int = 8, length: int = 16) -> Seq2SeqBatch:
    """Random token ids; the first row is full, the others are shorter."""
    draw = np.random.default_rng(0)
    lengths = np.array([length, *draw.integers(2, length, rows - 1)], np.int32)
    first_id = max(model.pad_id, model.bos_id, model.eos_id) + 1
    source, target = draw.integers(first_id, model.source_vocab_size, (2, rows, length), dtype=np.int32)
    target[:, 0] = model.bos_id
    padding = np.arange(length) >= lengths[:, None]
    source[padding] = target[padding] = model.pad_id
    return Seq2SeqBatch(source, lengths, target, lengths)


def main() -> None:
    torch.set_num_threads(2)
    config = TrainConfig(
        model=ModelConfig(
            d_model=64,
            num_heads=4,
            d_ff=256,
            num_encoder_layers=2,
            num_decoder_layers=2,
            dropout=0.0,
            source_vocab_size=100,
            target_vocab_size=100,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=0),
    )
    flax_step, torch_step = FlaxTrainStep(config, total_steps=STEPS), TorchTrainStep(config, total_steps=STEPS)
    state = flax_step.init()
    torch_step.model.load_state_dict(to_torch_state_dict(flax_step.model(state)))  # the same weights on both sides

    batch = random_batch(config.model)
    for step in range(1, STEPS + 1):
        state, in_jax = flax_step(state, batch)
        in_torch = torch_step(batch)
        print(
            f"step {step}: loss {float(in_jax['loss']):.6f} in JAX, {in_torch['loss']:.6f} in PyTorch; "
            f"gradient norm {float(in_jax['grad_norm']):.6f}, {in_torch['grad_norm']:.6f}"
        )

    trained = to_torch_state_dict(flax_step.model(state))
    differences = {
        name: float((torch.as_tensor(trained[name]) - parameter.detach()).abs().max())
        for name, parameter in torch_step.model.named_parameters()
        # Attention does not depend on key biases: their gradient is rounding noise, which Adam divides by its own size.
        if not name.endswith("key.bias")
    }
    worst = max(differences, key=lambda name: differences[name])
    print(f"parameters after {STEPS} steps: at most {differences[worst]:.1e} apart ({worst})")
    # Steps that differ in meaning move some parameter by about the learning rate.
    assert differences[worst] < 0.1 * config.optimizer.learning_rate, "`flax-transformer verify` says where they differ"


if __name__ == "__main__":
    main()
