"""How probable a model holds the tokens that it has generated."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flax_transformer.nn.models import Seq2Seq


@jax.jit
def token_log_probabilities(
    model: Seq2Seq,
    source: Int[Array, "batch source"],
    source_lengths: Int[Array, " batch"],
    tokens: Int[Array, "batch tokens"],
    lengths: Int[Array, " batch"],
) -> Float[Array, "batch tokens"]:
    """Log-probability of each token given those before it, in one pass.

    It is the model's own: no constraint, temperature or penalty changes it.

    Args:
        source: token ids, (batch, source), right-padded.
        source_lengths: real tokens of each source, (batch,).
        tokens: an output for each source, (batch, tokens), without its begin token, right-padded.
        lengths: real tokens of each output, (batch,).

    Returns:
        (batch, tokens); 0 behind the end of an output.
    """
    begin = jnp.full_like(tokens[:, :1], model.config.bos_id)
    logits = model(source, jnp.concatenate([begin, tokens[:, :-1]], axis=1), source_lengths, lengths)
    scores = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    chosen = jnp.take_along_axis(scores, tokens[..., None], axis=-1)[..., 0]
    return jnp.where(jnp.arange(tokens.shape[1])[None] < lengths[:, None], chosen, 0.0)
