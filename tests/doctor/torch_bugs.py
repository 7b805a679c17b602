# ruff: noqa: E501 - one bug a line
"""One-line changes to torch_models.py, and what each should be called."""

from tests.doctor.planting import Bug

ALL, CAUSAL, ENCODES = "seq2seq decoder encoder", "seq2seq decoder", "seq2seq encoder"
_MASK_LINE = 'scores = scores.masked_fill(~mask, float("-inf"))'
_SOFTMAX = "weights = torch.softmax(scores, dim=-1)"
_DECODER_MASK = "mask = causal_mask(target.shape[1], offset + target.shape[1])"
_SCALE = "scores = scores / math.sqrt(self.head_dim)"
_SINUSOIDS = "x = x + self.sinusoids[positions]"
_CAUSAL_MASK = "return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)"
_ENCODE = "return self.encoder(self.source_embedding(source), (source != PAD)[:, None, None])"
_MEMORY_MASK = "memory_mask = (source != PAD)[:, None, None]"
_DROPOUT = "weights = self.dropout(weights)"
_POOL = "x = (x * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)"
_LAYERS = "self.layers = nn.ModuleList(Layer(config, crosses) for _ in range(config.layers))"
_CROSS = "x = self.residual(x, self.norms[1], lambda y: self.cross_attention(y, memory, memory_mask))"
_SELF = "x = self.residual(x, self.norms[0], lambda y: self.self_attention(y, y, mask, cache, offset))"
_DECODER_IDS = "return self.projection(self.stack(self.embedding(ids, offset), mask, caches=caches, offset=offset))"

BUGS = (
    # masks
    Bug("no causal mask", CAUSAL, _CAUSAL_MASK, "return torch.ones(queries, keys, dtype=torch.bool)", "no-causal-mask"),
    Bug("causal mask transposed", CAUSAL, _CAUSAL_MASK, _CAUSAL_MASK.replace("tril(keys - queries)", "triu(0)"), "mask-transposed"),
    Bug("causal mask inverted", CAUSAL, _MASK_LINE, 'scores = scores.masked_fill(mask, float("-inf")) if mask.dim() == 2 else scores.masked_fill(~mask, -torch.inf)', "mask-transposed not-finite"),
    Bug("causal mask inverted, finite", CAUSAL, _CAUSAL_MASK, "return ~torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) | (torch.arange(queries) == queries - 1)[:, None]", "mask-transposed"),
    Bug("causal mask off by one", CAUSAL, _CAUSAL_MASK, _CAUSAL_MASK.replace("keys - queries", "keys - queries + 1"), "mask-offset"),
    Bug("strict causal mask", CAUSAL, _CAUSAL_MASK, _CAUSAL_MASK.replace("keys - queries", "keys - queries - 1"), "not-finite strict-mask"),
    Bug("strict causal mask, finite", CAUSAL, _CAUSAL_MASK, "return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries - 1) | (torch.arange(queries) == 0)[:, None]", "strict-mask"),
    Bug("mask only the diagonal", CAUSAL, _CAUSAL_MASK, "return torch.eye(keys, dtype=torch.bool)[-queries:]", "no-history"),
    Bug("mask of -10", ALL, _MASK_LINE, "scores = scores.masked_fill(~mask, -10.0)", "mask-weak"),
    Bug("mask adds -10", ALL, _MASK_LINE, "scores = scores - 10.0 * ~mask", "mask-weak"),
    Bug("masked scores set to 0", ALL, _MASK_LINE, "scores = scores.masked_fill(~mask, 0.0)", "mask-as-zero"),
    Bug("masked scores set to 1e-9", ALL, _MASK_LINE, "scores = scores.masked_fill(~mask, 1e-9)", "mask-as-zero"),
    Bug("mask multiplied into scores", ALL, _MASK_LINE, "scores = scores * mask", "mask-as-zero"),
    Bug("mask after softmax", ALL, _SOFTMAX, "weights = torch.softmax(query @ key.transpose(-2, -1) / math.sqrt(self.head_dim), dim=-1) * mask", "mask-after-softmax"),
    Bug("mask added as a boolean", ALL, _MASK_LINE, "scores = scores + mask", "no-causal-mask mask-weak padding-encoder"),
    Bug("mask dropped", ALL, _MASK_LINE, "scores = scores.masked_fill(~mask, float('-inf')) if self.training else scores", "no-causal-mask padding-encoder"),
    Bug("causal mask in training only", CAUSAL, _CAUSAL_MASK, "return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) | torch.tensor(torch.get_default_dtype() != torch.float32)", "no-causal-mask"),
    Bug("causal mask in the first layer only", CAUSAL, "x = layer(x, mask, memory,", "x = layer(x, mask if number == 0 or mask.dim() > 2 else mask | True, memory,", "no-causal-mask"),
    Bug("causal mask on the encoder", "seq2seq", _ENCODE, "return self.encoder(self.source_embedding(source), (source != PAD)[:, None, None] & causal_mask(source.shape[1], source.shape[1]))", "causal-encoder"),
    Bug("causal mask on the classifier", "encoder", "x = self.stack(self.embedding(ids), real[:, None, None])", "x = self.stack(self.embedding(ids), real[:, None, None] & causal_mask(ids.shape[1], ids.shape[1]))", "causal-encoder"),
    Bug("causal mask on cross-attention", "seq2seq", _MEMORY_MASK, "memory_mask = (source != PAD)[:, None, None] & torch.ones(target.shape[1], source.shape[1], dtype=torch.bool).tril(offset)", "causal-cross"),
    Bug("target's mask as memory mask", "seq2seq", _CROSS, "x = self.residual(x, self.norms[1], lambda y: self.cross_attention(y, memory, mask))", "length-tied causal-cross"),
    Bug("source's square mask as memory mask", "seq2seq", _MEMORY_MASK, "memory_mask = (source != PAD)[:, None, None] & causal_mask(source.shape[1], source.shape[1])", "length-tied memory-mask causal-cross"),
    Bug("cross-attention sees the first token only", "seq2seq", _MEMORY_MASK, "memory_mask = torch.arange(source.shape[1])[None, None, None] < 1", "memory-mask"),
    Bug("cross-attention misses the last tokens", "seq2seq", _MEMORY_MASK, "memory_mask = torch.arange(source.shape[1])[None, None, None] < source.shape[1] - 2", "memory-mask"),
    # padding
    Bug("no padding mask on the encoder", "seq2seq", _ENCODE, "return self.encoder(self.source_embedding(source), source[:, None, None] >= 0)", "padding-encoder"),
    Bug("no padding mask on the classifier", "encoder", "x = self.stack(self.embedding(ids), real[:, None, None])", "x = self.stack(self.embedding(ids), ids[:, None, None] >= 0)", "padding-encoder"),
    Bug("no padding mask on cross-attention", "seq2seq", _MEMORY_MASK, "memory_mask = source[:, None, None] >= 0", "padding-memory"),
    Bug("padding mask inverted", "seq2seq", _ENCODE, "return self.encoder(self.source_embedding(source), (source == PAD)[:, None, None])", "not-finite padding-inverted"),
    Bug("padding mask inverted, finite", "encoder", "x = self.stack(self.embedding(ids), real[:, None, None])", "x = self.stack(self.embedding(ids), (ids == PAD)[:, None, None] | ~(ids == PAD).any(1)[:, None, None, None])", "padding-inverted"),
    Bug("padding mask of another id", "seq2seq", _ENCODE, "return self.encoder(self.source_embedding(source), (source != EOS)[:, None, None])", "padding-encoder"),
    Bug("padding mask of row 0 for all", "encoder", "real = ids != PAD\n", "real = (ids != PAD)[:1].expand(len(ids), -1)\n", "padding-rows"),
    Bug("mean over pads too", "encoder", _POOL, "x = x.mean(dim=1)", "padding-pooling"),
    Bug("sum over real, divided by all", "encoder", _POOL, "x = (x * real[..., None]).sum(dim=1) / ids.shape[1]", "padding-pooling"),
    Bug("maximum over pads too", "encoder", _POOL, "x = x.max(dim=1).values", "padding-pooling"),
    Bug("last position pooled", "encoder", _POOL, "x = x[:, -1]", "padding-pooling"),
    # positions
    Bug("no positions", ALL, _SINUSOIDS, "pass", "no-target-positions no-source-positions"),
    Bug("no positions on the target", "seq2seq", "x = self.target_embedding(target, offset)", "x = self.target_embedding.table(target) * math.sqrt(self.config.width)", "no-target-positions"),
    Bug("no positions on the source", "seq2seq", _ENCODE, "return self.encoder(self.source_embedding.table(source), (source != PAD)[:, None, None])", "no-source-positions"),
    Bug("positions replace nothing", ALL, _SINUSOIDS, "self.sinusoids[positions]", "no-target-positions no-source-positions"),
    Bug("positions by row", ALL, _SINUSOIDS, "x = x + self.sinusoids[torch.arange(ids.shape[0])][:, None]", "batch-leak"),
    Bug("positions all zero", ALL, "positions = torch.arange(offset, offset + ids.shape[1])", "positions = torch.zeros(ids.shape[1], dtype=torch.long)", "no-target-positions no-source-positions"),
    Bug("positions clamped", ALL, "positions = torch.arange(offset, offset + ids.shape[1])", "positions = torch.arange(offset, offset + ids.shape[1]).clamp(max=3)", "position-range"),
    Bug("positions in pairs", ALL, "positions = torch.arange(offset, offset + ids.shape[1])", "positions = torch.arange(offset, offset + ids.shape[1]) // 2", "position-range"),
    Bug("positions times 1e-4", ALL, _SINUSOIDS, "x = x + 1e-4 * self.sinusoids[positions]", "weak-positions embedding-ratio", exact=False),
    Bug("rotary of position 0", CAUSAL, "steps = torch.arange(offset, offset + x.shape[2], dtype=x.dtype)[:, None]", "steps = torch.zeros(x.shape[2], dtype=x.dtype)[:, None]", "no-target-positions no-source-positions", options=(("positions", "rotary"),)),
    Bug("embeddings not scaled", ALL, "x = self.table(ids) * math.sqrt(self.width)", "x = self.table(ids) / math.sqrt(self.width)", "embedding-ratio weak-positions", exact=False, options=(("width", 64),)),
    # scale and softmax
    Bug("no scale", ALL, _SCALE, "pass", "scale-missing", exact=False, options=(("width", 256),)),
    Bug("scale multiplied", ALL, _SCALE, "scores = scores * math.sqrt(self.head_dim)", "scale-wrong", exact=False, options=(("width", 128),)),
    Bug("scaled twice", ALL, _SCALE, "scores = scores / self.head_dim", "scale-wrong", exact=False),
    Bug("scale of the width", ALL, _SCALE, "scores = scores / math.sqrt(self.head_dim * self.heads)", "scale-wrong", exact=False),
    Bug("softmax over queries", ALL, _SOFTMAX, "weights = torch.softmax(scores, dim=-2).nan_to_num()", "softmax-axis"),
    Bug("softmax over heads", ALL, _SOFTMAX, "weights = torch.softmax(scores, dim=1).nan_to_num()", "softmax-axis"),
    Bug("softmax over rows", ALL, _SOFTMAX, "weights = torch.softmax(scores, dim=0).nan_to_num()", "softmax-axis batch-leak"),
    Bug("sigmoid for softmax", ALL, _SOFTMAX, "weights = torch.softmax(scores, dim=-1) * 0.5", "weights-not-normalized"),
    Bug("softmax at the end", "seq2seq", "self.projection = nn.Linear(config.width, config.vocab)\n        if config.tied:\n            self.projection.weight = self.target_embedding", "self.projection = nn.Sequential(nn.Linear(config.width, config.vocab), nn.Softmax(-1))\n        if config.tied:\n            self.projection.weight = self.target_embedding", "probabilities"),
    Bug("softmax at the end of the decoder", "decoder", "self.projection = nn.Linear(config.width, config.vocab)\n        if config.tied:\n            self.projection.weight = self.embedding", "self.projection = nn.Sequential(nn.Linear(config.width, config.vocab), nn.Softmax(-1))\n        if config.tied:\n            self.projection.weight = self.embedding", "probabilities"),
    Bug("softmax at the end of the classifier", "encoder", "x = (x * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)\n        return self.head(x)", "x = (x * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)\n        return self.head(x).softmax(-1)", "probabilities"),
    # rows
    Bug("heads reshaped without transpose", ALL, "x = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)", "x = x.reshape(x.shape[0], x.shape[2], -1)", "heads-mixed"),
    Bug("heads split without transpose", ALL, "return x.view(x.shape[0], x.shape[1], self.heads, self.head_dim).transpose(1, 2)", "return x.reshape(x.shape[0], self.heads, x.shape[1], self.head_dim)", "heads-mixed"),
    Bug("heads of different rows", ALL, "return x.view(x.shape[0], x.shape[1], self.heads, self.head_dim).transpose(1, 2)", "return x.view(x.shape[0], x.shape[1], self.heads, self.head_dim).transpose(1, 2).roll(1, 0) if self.training is None else x.roll(1, 0).view(x.shape[0], x.shape[1], self.heads, self.head_dim).transpose(1, 2)", "batch-leak"),
    Bug("batch norm for layer norm, over the batch", ALL, "return self.down(F.relu(self.up(x)))", "return self.down(F.relu(self.up(x) - self.up(x).mean(0)))", "batch-leak"),
    Bug("a mean over positions", CAUSAL, "return self.down(F.relu(self.up(x)))", "return self.down(F.relu(self.up(x) - self.up(x).mean(1, keepdim=True)))", "sees-future"),
    # source and target
    Bug("no cross-attention", "seq2seq", _CROSS, "pass", "no-source"),
    Bug("cross-attention on itself", "seq2seq", _CROSS, "x = self.residual(x, self.norms[1], lambda y: self.cross_attention(y, y, mask))", "no-source"),
    Bug("memory detached to zero", "seq2seq", _CROSS, "x = self.residual(x, self.norms[1], lambda y: self.cross_attention(y, memory * 0, memory_mask))", "no-source"),
    Bug("no self-attention", CAUSAL, _SELF, "pass", "no-history no-target-positions no-source no-gradient no-source-positions", exact=True),
    Bug("decoder fed zeros", "seq2seq", "x = self.target_embedding(target, offset)", "x = self.target_embedding(torch.zeros_like(target), offset)", "constant-input"),
    Bug("decoder fed its first token", "seq2seq", "x = self.target_embedding(target, offset)", "x = self.target_embedding(target[:, :1].expand_as(target), offset)", "token-ignored no-history constant-input"),
    Bug("decoder shifts twice", "decoder", _DECODER_IDS, "return self.projection(self.stack(self.embedding(F.pad(ids, (2, 0))[:, :-2], offset), mask, caches=caches, offset=offset))", "double-shift"),
    # state, dropout, layers, gradients
    Bug("dropout at inference", ALL, _DROPOUT, "weights = F.dropout(weights, 0.1)", "nondeterministic"),
    Bug("layers in a plain list", ALL, _LAYERS, "self.layers = [Layer(config, crosses) for _ in range(config.layers)]", "unregistered"),
    Bug("one layer repeated", ALL, _LAYERS, "self.layers = nn.ModuleList([Layer(config, crosses)] * config.layers)", "shared-layers", exact=False),
    Bug("layers copied", ALL, _LAYERS, "self.layers = nn.ModuleList(map(__import__('copy').deepcopy, [Layer(config, crosses)] * config.layers))", "identical-layers", exact=False),
    Bug("forward writes a buffer", ALL, "positions = torch.arange(offset, offset + ids.shape[1])\n", "positions = torch.arange(offset, offset + ids.shape[1]) + 0 * self.sinusoids.mul_(1.01).sum().long()\n", "mutates nondeterministic"),
    Bug("queries detached", ALL, "query, key, value = self.split(self.query(x)),", "query, key, value = self.split(self.query(x)).detach(),", "no-gradient"),
    Bug("feed-forward under no_grad", ALL, "return self.down(F.relu(self.up(x)))", "return self.down(F.relu(self.up(x).detach()))", "no-gradient unused-parameter"),
    Bug("embedding detached", ALL, "x = self.table(ids) * math.sqrt(self.width)", "x = self.table(ids).detach() * math.sqrt(self.width)", "no-gradient unused-parameter"),
    Bug("dead relu", ALL, "return self.down(F.relu(self.up(x)))", "return self.down(0 * F.relu(self.up(x)))", "no-gradient"),
    Bug("feed-forward not called", ALL, "return self.residual(x, self.norms[-1], self.feed_forward)", "return x", "unused-parameter no-gradient", exact=False),
    Bug("embeddings of variance 1, tied", CAUSAL, "nn.init.normal_(self.table.weight, std=config.width**-0.5)", "nn.init.normal_(self.table.weight, std=1.0)", "initial-loss", exact=False, options=(("tied", True), ("width", 64))),
    Bug("no residual around attention", ALL, "return norm(x + self.dropout(sublayer(x)))", "return norm(self.dropout(sublayer(x)))", "no-residual", exact=False),
    # loss
    Bug("loss of the token before", "decoder", "return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=PAD)", "logits = model(ids[:, 1:])\n    return F.cross_entropy(logits.transpose(1, 2), ids[:, :-1], ignore_index=PAD)", "loss-own-token"),
    Bug("targets not shifted", "seq2seq", "return F.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=PAD)", "return F.cross_entropy(logits.transpose(1, 2), target[:, :-1], ignore_index=PAD)", "loss-own-token"),
    Bug("ids not shifted", "decoder", "logits = model(ids[:, :-1])\n    return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=PAD)", "logits = model(ids)\n    return F.cross_entropy(logits.transpose(1, 2), ids, ignore_index=PAD)", "loss-own-token"),
    Bug("decoder given the labels", "seq2seq", "logits = model(source, target[:, :-1])", "logits = model(source, target[:, 1:])", "loss-own-token"),
    Bug("shifted twice in the loss", "decoder", "return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=PAD)", "return F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 2:], ignore_index=PAD)", "loss-shift"),
    Bug("padding counts in the loss", "seq2seq", "return F.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=PAD)", "return F.cross_entropy(logits.transpose(1, 2), target[:, 1:])", "loss-padding"),
    Bug("padding in the denominator", "decoder", "return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=PAD)", "return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=PAD, reduction='sum') / ids[:, 1:].numel()", "loss-padding"),
    Bug("end token ignored", "seq2seq", "return F.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=PAD)", "return F.cross_entropy(logits.transpose(1, 2), target[:, 1:].masked_fill(target[:, 1:] == EOS, PAD), ignore_index=PAD)", "loss-no-eos"),
    Bug("end token cut off", "seq2seq", "logits = model(source, target[:, :-1])\n    return F.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=PAD)", "logits = model(source, target[:, :-1])\n    return F.cross_entropy(logits[:, :-1].transpose(1, 2), target[:, 1:-1], ignore_index=PAD)", "loss-no-eos"),
    # generation
    Bug("generation starts with the pad", "seq2seq", "ids = torch.full((len(source), 1), BOS)", "ids = torch.full((len(source), 1), PAD)", "begin-token"),
    Bug("generation starts with the end", "seq2seq", "ids = torch.full((len(source), 1), BOS)", "ids = torch.full((len(source), 1), EOS)", "begin-token"),
    Bug("cached steps at position 0", "seq2seq", "logits = model.decode(source, memory, ids[:, -1:], caches, step)", "logits = model.decode(source, memory, ids[:, -1:], caches, 0)", "cache"),
    Bug("cached steps one position off", "decoder", "positions = torch.arange(offset, offset + ids.shape[1])", "positions = torch.arange(offset, offset + ids.shape[1]) + (offset > 0)", "cache"),
    Bug("cache cut to the last token", "decoder", 'cache["key"], cache["value"] = key, value', 'cache["key"], cache["value"] = key[:, :, -1:], value[:, :, -1:]', "cache"),
    Bug("cache not written", "decoder", 'cache["key"], cache["value"] = key, value', "pass", "cache"),
    Bug("values not cached in order", "decoder", 'torch.cat([cache["value"], value], dim=2)', 'torch.cat([value, cache["value"]], dim=2)', "cache"),
    Bug("generation forgets the source's mask", "seq2seq", "memory = model.encode(source)", "memory = model.encode(source.roll(1, 1))", "cache generate-mismatch"),
    Bug("second best token", "decoder", "ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)\n        logits = model", "ids = torch.cat([ids, logits[:, -1:].topk(2).indices[..., 1]], dim=1)\n        logits = model", "generate-mismatch"),
    # lengths
    Bug("position table too short", ALL, 'self.register_buffer("sinusoids", sinusoids(config.max_length, config.width))', 'self.register_buffer("sinusoids", sinusoids(config.max_length - 1, config.width))', "overrun"),
    Bug("learned table too short", ALL, "nn.Embedding(config.max_length, config.width)", "nn.Embedding(config.max_length - 2, config.width)", "overrun", options=(("positions", "learned"),)),
)  # fmt: skip
