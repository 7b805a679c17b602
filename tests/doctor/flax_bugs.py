# ruff: noqa: E501 - one bug a line
"""One-line changes to flax_models.py. A bug of the same name in torch_bugs.py must get the same diagnosis."""

from tests.doctor.planting import Bug

_MASK_LINE = "scores = jnp.where(mask, scores, -jnp.inf)"
_SOFTMAX = "weights = jax.nn.softmax(scores, axis=-1)"
_SCALE = "scores = scores / math.sqrt(self.head_dim)"
_SINUSOIDS = "x = x + self.sinusoids[positions]"
_CAUSAL_MASK = "return jnp.tril(jnp.ones((queries, keys), bool), keys - queries)"
_ENCODE = "return self.encoder(self.source_embedding(source), (source != PAD)[:, None, None])"
_MEMORY_MASK = "memory_mask = (source != PAD)[:, None, None]"
_POOL = "x = (x * real[..., None]).sum(axis=1) / real.sum(axis=1, keepdims=True)"
_LAYERS = "self.layers = nnx.List(Layer(config, crosses, rngs) for _ in range(config.layers))"
_CROSS = "x = self.residual(x, self.norms[1], lambda y: self.cross_attention(y, memory, memory_mask))"
_POSITIONS = "positions = jnp.arange(offset, offset + ids.shape[1])"
_SEQ2SEQ_LOSS = "return cross_entropy(logits, target[:, 1:], target[:, 1:] != PAD)"
_DECODER_LOSS = "return cross_entropy(logits, ids[:, 1:], ids[:, 1:] != PAD)"
_ENCODER_MASK = "x = self.stack(self.embedding(ids), real[:, None, None])"
_STEP = "logits = model.decode(source, memory, ids[:, -1:], caches, step)"

BUGS = (
    # masks
    Bug("no causal mask", "decoder", _CAUSAL_MASK, "return jnp.ones((queries, keys), bool)", "no-causal-mask"),
    Bug("causal mask transposed", "decoder", _CAUSAL_MASK, "return jnp.triu(jnp.ones((queries, keys), bool))", "mask-transposed"),
    Bug("causal mask inverted, finite", "decoder", _CAUSAL_MASK, "return ~jnp.tril(jnp.ones((queries, keys), bool), keys - queries) | (jnp.arange(queries) == queries - 1)[:, None]", "mask-transposed"),
    Bug("causal mask off by one", "decoder", _CAUSAL_MASK, _CAUSAL_MASK.replace("keys - queries)", "keys - queries + 1)"), "mask-offset"),
    Bug("strict causal mask", "decoder", _CAUSAL_MASK, _CAUSAL_MASK.replace("keys - queries)", "keys - queries - 1)"), "not-finite strict-mask"),
    Bug("mask only the diagonal", "decoder", _CAUSAL_MASK, "return jnp.eye(keys, dtype=bool)[-queries:]", "no-history"),
    Bug("mask of -10", "decoder", _MASK_LINE, "scores = jnp.where(mask, scores, -10.0)", "mask-weak"),
    Bug("mask adds -10", "encoder", _MASK_LINE, "scores = scores - 10.0 * ~mask", "mask-weak"),
    Bug("masked scores set to 0", "decoder", _MASK_LINE, "scores = jnp.where(mask, scores, 0.0)", "mask-as-zero"),
    Bug("mask multiplied into scores", "encoder", _MASK_LINE, "scores = scores * mask", "mask-as-zero"),
    Bug("mask after softmax", "decoder", _SOFTMAX, "weights = jax.nn.softmax(query @ key.swapaxes(-2, -1) / math.sqrt(self.head_dim), axis=-1) * mask", "mask-after-softmax"),
    Bug("causal mask on the encoder", "seq2seq", _ENCODE, "return self.encoder(self.source_embedding(source), (source != PAD)[:, None, None] & causal_mask(source.shape[1], source.shape[1]))", "causal-encoder"),
    Bug("causal mask on the classifier", "encoder", _ENCODER_MASK, "x = self.stack(self.embedding(ids), real[:, None, None] & causal_mask(ids.shape[1], ids.shape[1]))", "causal-encoder"),
    Bug("causal mask on cross-attention", "seq2seq", _MEMORY_MASK, "memory_mask = (source != PAD)[:, None, None] & jnp.tril(jnp.ones((target.shape[1], source.shape[1]), bool), offset)", "causal-cross"),
    Bug("target's mask as memory mask", "seq2seq", _CROSS, "x = self.residual(x, self.norms[1], lambda y: self.cross_attention(y, memory, mask))", "length-tied causal-cross"),
    # padding
    Bug("no padding mask on the encoder", "seq2seq", _ENCODE, "return self.encoder(self.source_embedding(source), source[:, None, None] >= 0)", "padding-encoder"),
    Bug("no padding mask on the classifier", "encoder", _ENCODER_MASK, "x = self.stack(self.embedding(ids), ids[:, None, None] >= 0)", "padding-encoder"),
    Bug("no padding mask on cross-attention", "seq2seq", _MEMORY_MASK, "memory_mask = source[:, None, None] >= 0", "padding-memory"),
    Bug("mean over pads too", "encoder", _POOL, "x = x.mean(axis=1)", "padding-pooling"),
    Bug("maximum over pads too", "encoder", _POOL, "x = x.max(axis=1)", "padding-pooling"),
    Bug("padding mask of row 0 for all", "encoder", "real = ids != PAD\n", "real = jnp.broadcast_to((ids != PAD)[:1], ids.shape)\n", "padding-rows"),
    # positions
    Bug("no positions", "decoder", _SINUSOIDS, "pass", "no-target-positions no-source-positions"),
    Bug("no positions on the target", "seq2seq", "x = self.target_embedding(target, offset)", "x = self.target_embedding.table(target) * math.sqrt(self.config.width)", "no-target-positions"),
    Bug("no positions on the source", "seq2seq", _ENCODE, "return self.encoder(self.source_embedding.table(source), (source != PAD)[:, None, None])", "no-source-positions"),
    Bug("positions all zero", "encoder", _POSITIONS, "positions = jnp.zeros(ids.shape[1], int)", "no-target-positions no-source-positions"),
    Bug("positions in pairs", "decoder", _POSITIONS, "positions = jnp.arange(offset, offset + ids.shape[1]) // 2", "position-range"),
    Bug("positions times 1e-4", "decoder", _SINUSOIDS, "x = x + 1e-4 * self.sinusoids[positions]", "weak-positions embedding-ratio", exact=False),
    Bug("rotary of position 0", "decoder", "steps = jnp.arange(offset, offset + x.shape[2])[:, None]", "steps = jnp.zeros(x.shape[2])[:, None]", "no-target-positions", options=(("positions", "rotary"),)),
    # scale, softmax, heads
    Bug("no scale", "decoder", _SCALE, "pass", "scale-missing", exact=False, options=(("width", 256),)),
    Bug("scaled twice", "encoder", _SCALE, "scores = scores / self.head_dim", "scale-wrong", exact=False),
    Bug("softmax over queries", "encoder", _SOFTMAX, "weights = jnp.nan_to_num(jax.nn.softmax(scores, axis=-2))", "softmax-axis"),
    Bug("softmax over heads", "decoder", _SOFTMAX, "weights = jnp.nan_to_num(jax.nn.softmax(scores, axis=1))", "softmax-axis"),
    Bug("sigmoid for softmax", "encoder", _SOFTMAX, "weights = jax.nn.softmax(scores, axis=-1) * 0.5", "weights-not-normalized"),
    Bug("softmax at the end of the classifier", "encoder", "x = (x * real[..., None]).sum(axis=1) / real.sum(axis=1, keepdims=True)\n        return self.head(x)", "x = (x * real[..., None]).sum(axis=1) / real.sum(axis=1, keepdims=True)\n        return jax.nn.softmax(self.head(x))", "probabilities"),
    Bug("heads reshaped without transpose", "decoder", "x = x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)", "x = x.reshape(x.shape[0], x.shape[2], -1)", "heads-mixed"),
    Bug("batch norm for layer norm, over the batch", "encoder", "return self.down(nnx.relu(self.up(x)))", "return self.down(nnx.relu(self.up(x) - self.up(x).mean(0)))", "batch-leak"),
    Bug("a mean over positions", "decoder", "return self.down(nnx.relu(self.up(x)))", "return self.down(nnx.relu(self.up(x) - self.up(x).mean(1, keepdims=True)))", "sees-future"),
    # source and target
    Bug("no cross-attention", "seq2seq", _CROSS, "pass", "no-source"),
    Bug("decoder fed zeros", "seq2seq", "x = self.target_embedding(target, offset)", "x = self.target_embedding(target * 0, offset)", "constant-input"),
    # layers, gradients
    Bug("dropout at inference", "seq2seq decoder encoder", "weights = self.dropout(weights)", "weights = self.dropout(weights, deterministic=False)", "nondeterministic"),
    Bug("one layer repeated", "encoder", _LAYERS, "self.layers = nnx.List([Layer(config, crosses, rngs)] * config.layers)", "shared-layers", exact=False),
    Bug("layers copied", "decoder", _LAYERS, "self.layers = nnx.List(Layer(config, crosses, nnx.Rngs(0)) for _ in range(config.layers))", "identical-layers", exact=False),
    Bug("queries detached", "decoder", "query, key, value = self.split(self.query(x)),", "query, key, value = jax.lax.stop_gradient(self.split(self.query(x))),", "no-gradient"),
    Bug("dead relu", "encoder", "return self.down(nnx.relu(self.up(x)))", "return self.down(0 * nnx.relu(self.up(x)))", "no-gradient"),
    Bug("feed-forward not called", "decoder", "return self.residual(x, self.norms[-1], self.feed_forward)", "return x", "unused-parameter no-gradient", exact=False),
    Bug("no residual around attention", "encoder", "return norm(x + self.dropout(sublayer(x)))", "return norm(self.dropout(sublayer(x)))", "no-residual"),
    # loss, generation, lengths
    Bug("targets not shifted", "seq2seq", _SEQ2SEQ_LOSS, "return cross_entropy(logits, target[:, :-1], target[:, :-1] != PAD)", "loss-own-token"),
    Bug("loss of the token before", "decoder", _DECODER_LOSS, "logits = model(ids[:, 1:])\n    return cross_entropy(logits, ids[:, :-1], ids[:, :-1] != PAD)", "loss-own-token"),
    Bug("shifted twice in the loss", "decoder", _DECODER_LOSS, "return cross_entropy(logits[:, :-1], ids[:, 2:], ids[:, 2:] != PAD)", "loss-shift"),
    Bug("padding counts in the loss", "seq2seq", _SEQ2SEQ_LOSS, "return cross_entropy(logits, target[:, 1:], target[:, 1:] >= 0)", "loss-padding"),
    Bug("end token ignored", "seq2seq", _SEQ2SEQ_LOSS, "return cross_entropy(logits, target[:, 1:], (target[:, 1:] != PAD) & (target[:, 1:] != EOS))", "loss-no-eos"),
    Bug("generation starts with the pad", "seq2seq", "ids = jnp.full((len(source), 1), BOS)", "ids = jnp.full((len(source), 1), PAD)", "begin-token"),
    Bug("cached steps at position 0", "seq2seq", _STEP, "logits = model.decode(source, memory, ids[:, -1:], caches, 0)", "cache"),
    Bug("cache cut to the last token", "decoder", 'cache["key"], cache["value"] = key, value', 'cache["key"], cache["value"] = key[:, :, -1:], value[:, :, -1:]', "cache"),
    Bug("second best token", "decoder", "ids = jnp.concatenate([ids, logits[:, -1:].argmax(-1)], axis=1)\n        logits = model", "ids = jnp.concatenate([ids, jnp.argsort(logits[:, -1:])[..., -2]], axis=1)\n        logits = model", "generate-mismatch"),
    Bug("position table too short", "seq2seq decoder encoder", "self.sinusoids = nnx.Cache(sinusoids(config.max_length, config.width))", "self.sinusoids = nnx.Cache(sinusoids(config.max_length - 1, config.width))", "overrun"),
    Bug("learned table too short", "seq2seq decoder encoder", "nnx.Embed(config.max_length, config.width, rngs=rngs)", "nnx.Embed(config.max_length - 2, config.width, rngs=rngs)", "overrun", options=(("positions", "learned"),)),
)  # fmt: skip
