"""What can be wrong with a Transformer: for each cause its symptom, why it happens and what to do about it.

The order is that of a diagnosis: what stands higher is looked at first, and explains what stands lower.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One row of the debug guide.

    Args:
        explains: keys of causes that this one brings about; findings of these are folded under it.
    """

    key: str
    title: str
    symptom: str
    reason: str
    fix: str
    explains: frozenset[str] = frozenset()


def _cause(key: str, title: str, symptom: str, reason: str, fix: str, explains: str = "") -> Cause:
    return Cause(key, title, symptom, reason, fix, frozenset(explains.split()))


_EVERYTHING_MASKED = (
    "sees-future mask-offset mask-weak strict-mask no-history position-range causal-cross memory-mask causal-encoder"
)

_CAUSES = (
    _cause(
        "not-finite",
        "logits are NaN or infinite",
        "the loss is NaN from the first step",
        "a row of scores is masked everywhere, a number overflows, or a logarithm or root leaves its domain",
        "mask with a finite minimum or return zeros where a query may attend to nothing; look at the named layer",
        "everything",
    ),
    _cause(
        "unregistered",
        "layers are hidden from the model",
        "the loss stops early; dropout never stops; the checkpoint is too small",
        "modules in a plain list, dict or closure are not registered: no optimizer, eval(), to() or state_dict sees them",
        "hold them in nn.ModuleList or nn.ModuleDict (nnx.List in Flax)",
        "nondeterministic no-gradient unused-parameter batch-leak",
    ),
    _cause(
        "nondeterministic",
        "the same input gives different logits in evaluation mode",
        "predictions change from call to call",
        "dropout is on at inference: a functional dropout without training=self.training, or a layer eval() does not reach",
        "pass training=self.training (deterministic=True in Flax), and call model.eval() before predicting",
        "mutates batch-leak padding-encoder padding-memory padding-target padding-pooling padding sees-future "
        "cache generate-mismatch begin-token weights-not-normalized softmax-axis mask-after-softmax "
        "no-target-positions no-source-positions weak-positions",
    ),
    _cause(
        "mutates",
        "a forward pass changes the model",
        "predictions depend on what was predicted before",
        "a buffer or parameter is written in forward(), in evaluation mode too",
        "keep state out of forward(), or hand it in and out as a cache",
        "nondeterministic batch-leak cache generate-mismatch",
    ),
    _cause(
        "constant-logits",
        "logits do not depend on the input",
        "predictions are flat: the same output whatever the input",
        "the input is overwritten, multiplied by zero, or never reaches the output",
        "follow the input from the embedding to the projection",
        "everything",
    ),
    _cause(
        "length-tied",
        "the model runs only where source and target are equally long",
        "a shape error in production, on the first pair of different lengths",
        "a (length, length) mask made for the source or the target is passed as the memory mask",
        "cross-attention needs no (length, length) mask: pass the source's padding mask as memory_key_padding_mask",
        "memory-mask causal-cross",
    ),
    _cause(
        "layout",
        "rows of a batch are read as positions",
        "predictions for a text change with its neighbours in the batch; lengths of outputs look swapped",
        "the attention takes (length, rows) and gets (rows, length): batch_first is missing",
        "build the layers with batch_first=True, or transpose the ids",
        "everything",
    ),
    _cause(
        "batch-leak",
        "a row's logits depend on the other rows of its batch",
        "validation is fine in large batches and wrong one by one in production",
        "something mixes rows: batch norm, a softmax or mean over the batch axis, a wrong reshape of heads, batch_first",
        "normalize with LayerNorm, and look at every reshape and axis: rows must never meet",
        "everything",
    ),
    _cause(
        "heads-mixed",
        "heads are split or joined by a wrong reshape",
        "it learns, but badly; words get mixed up",
        "reshape without the transpose between (length, heads) and (heads, length) mixes positions",
        "view(rows, length, heads, head_dim).transpose(1, 2), and back the other way round",
        "sees-future token-ignored no-target-positions no-source-positions padding padding-encoder padding-memory "
        "padding-pooling padding-target position-range cache generate-mismatch weak-positions causal-encoder no-history",
    ),
    _cause(
        "softmax-axis",
        "the softmax runs along the wrong axis",
        "attention maps look odd and training stalls; future tokens leak into the normalization",
        "weights must sum to 1 over the keys of a query, but the softmax sums over queries, heads or rows",
        "softmax(scores, dim=-1) on scores of shape (rows, heads, queries, keys)",
        "sees-future batch-leak padding-encoder padding-memory padding-pooling padding-target padding entropy "
        "weights-not-normalized no-target-positions scale-missing scale-wrong",
    ),
    _cause(
        "mask-after-softmax",
        "the mask is applied after the softmax",
        "training loss suspiciously low, generation poor",
        "weights set to zero behind the softmax no longer sum to 1, and masked tokens still count in its denominator",
        "mask the scores with -inf before the softmax",
        "sees-future padding-encoder padding-memory padding-pooling padding weights-not-normalized mask-weak entropy",
    ),
    _cause(
        "mask-as-zero",
        "masked scores are set to a small number instead of -inf",
        "training loss suspiciously low, generation poor",
        "a score of 0 is no mask: exp(0) = 1, so masked tokens get weight like any other",
        "masked_fill(~mask, float('-inf')), before the softmax",
        "sees-future padding-encoder padding-memory padding-pooling padding mask-weak no-causal-mask",
    ),
    _cause(
        "mask-transposed",
        "the causal mask is transposed or inverted",
        "training loss near 0, generation is nonsense: the model reads the future and not the past",
        "the mask blocks what was and lets through what will be: triu for tril, or True where False is meant",
        "a query may attend to keys at its own position and before: tril, True = may attend",
        _EVERYTHING_MASKED + " no-causal-mask begin-token cache generate-mismatch not-finite",
    ),
    _cause(
        "no-causal-mask",
        "the causal mask is missing",
        "training loss near 0 (98% accuracy), generation is nonsense",
        "in training each position sees the token that it is to predict; in generation there is none to see",
        "pass a causal mask to every self-attention of the decoder (is_causal=True, nn.make_causal_mask)",
        "sees-future padding-target cache generate-mismatch begin-token loss-own-token",
    ),
    _cause(
        "mask-offset",
        "the causal mask is off by one",
        "training loss near 0, generation is nonsense: the token to predict is visible",
        "the diagonal is shifted: triu(diagonal=2) or tril(diagonal=1) lets the next token through",
        "block strictly above the main diagonal: triu(diagonal=1), or keep tril(diagonal=0)",
        "sees-future cache generate-mismatch begin-token padding-target",
    ),
    _cause(
        "strict-mask",
        "the causal mask hides a token from itself",
        "the first position is NaN or sees the future, the loss stays high",
        "the diagonal is blocked too: the first query may attend to nothing, and a finite mask then lets all through",
        "block strictly above the main diagonal: triu(diagonal=1), or keep tril(diagonal=0)",
        "sees-future not-finite cache generate-mismatch begin-token",
    ),
    _cause(
        "mask-weak",
        "the mask is too small a number",
        "generation is a little worse than the loss promises, more so the longer it trains",
        "a mask of -10 leaves e^-10 of the weight, which training learns to use",
        "mask with -inf, or with torch.finfo(dtype).min",
        "sees-future padding-encoder padding-memory padding-pooling padding",
    ),
    _cause(
        "no-residual",
        "an attention has no residual connection",
        "deep stacks do not train; positions become alike",
        "the output of the sublayer replaces its input instead of being added to it",
        "x + sublayer(x)",
        "gradient-depth constant-input weak-positions",
    ),
    _cause(
        "sees-future",
        "logits depend on later tokens",
        "training loss near 0, generation is nonsense",
        "something other than attention looks ahead: a bidirectional layer, a convolution, a mean or norm over positions",
        "whatever mixes positions in a decoder must look back only",
        "cache generate-mismatch begin-token padding-target",
    ),
    _cause(
        "constant-input",
        "the decoder's input is ignored",
        "the loss stays near that of guessing from the source; output repeats itself: no teacher forcing",
        "the decoder is fed something constant, or its own guesses, instead of the target shifted right",
        "feed the target shifted right (teacher forcing), embedded, in training",
        "no-history no-target-positions weak-positions no-gradient unused-parameter position-range token-ignored "
        "begin-token cache generate-mismatch",
    ),
    _cause(
        "double-shift",
        "the target is shifted too far",
        "the loss stays high: the last token is never seen when the next one is predicted",
        "the model and its caller both shift the target, or a slice drops one token too many",
        "shift once: input target[:-1], label target[1:]",
        "no-history",
    ),
    _cause(
        "no-history",
        "earlier tokens do not matter",
        "output repeats itself; every word is guessed from the one before",
        "the mask blocks all but the diagonal, or self-attention is skipped",
        "a query may attend to all keys at its own position and before",
        "no-target-positions weak-positions no-gradient unused-parameter cache generate-mismatch position-range "
        "token-ignored",
    ),
    _cause(
        "token-ignored",
        "some tokens have no effect at all",
        "parts of the input are ignored",
        "a slice or a mask cuts tokens off",
        "check slices such as [:, 1:] and the mask of the named attention",
        "no-gradient weak-positions",
    ),
    _cause(
        "no-source",
        "the source has no effect",
        "fluent output that has nothing to do with the input",
        "cross-attention is missing, attends to the target, or its result is dropped",
        "keys and values of cross-attention come from the encoder's output",
        "no-source-positions no-gradient unused-parameter padding-memory padding-encoder padding token-ignored "
        "memory-mask causal-encoder weak-positions entropy gradient-depth",
    ),
    _cause(
        "causal-encoder",
        "a causal mask is on the encoder",
        "quality is lower than it should be, worst where the end of the source matters",
        "the encoder may read the whole source, but the mask hides what follows each token",
        "give the encoder no mask but the one for padding",
        "token-ignored entropy",
    ),
    _cause(
        "causal-cross",
        "a causal mask is on cross-attention",
        "the first words ignore most of the source; word order is wrong",
        "the i-th output may attend to the first i tokens of the source only",
        "give cross-attention no mask but the one for the source's padding",
        "memory-mask token-ignored entropy",
    ),
    _cause(
        "memory-mask",
        "cross-attention cannot see all of the source",
        "parts of the input are ignored",
        "a mask that belongs elsewhere (the source's or the target's) is passed as the memory mask",
        "give cross-attention no mask but the one for the source's padding",
        "token-ignored padding-memory entropy",
    ),
    _cause(
        "padding-inverted",
        "the padding mask is inverted",
        "good in training without padding, nonsense in batches",
        "real tokens are blocked and pads are attended to: True means the opposite of what is passed",
        "torch.nn's key_padding_mask is True at pads; most other masks are True at real tokens",
        "padding-encoder padding-memory padding-target padding-pooling padding not-finite token-ignored",
    ),
    _cause(
        "padding-rows",
        "the padding mask of one row is applied to others",
        "predictions for a text change with its neighbours in the batch",
        "a mask is taken from the first row, from the longest one, or broadcast along the wrong axis",
        "a mask of shape (rows, 1, 1, length), one row for each text",
        "padding padding-encoder padding-memory padding-pooling padding-target",
    ),
    _cause(
        "padding-encoder",
        "padding leaks into the encoder",
        "a text's prediction depends on how much padding its batch needs",
        "self-attention attends to pads",
        "pass the padding mask to every self-attention (src_key_padding_mask)",
        "padding padding-memory padding-pooling",
    ),
    _cause(
        "padding-memory",
        "padding leaks through cross-attention",
        "a text's prediction depends on how much padding its batch needs",
        "cross-attention attends to pads of the source",
        "pass the source's padding mask to cross-attention too (memory_key_padding_mask)",
        "padding",
    ),
    _cause(
        "padding-pooling",
        "padding leaks into the pooled vector",
        "a text's class depends on how much padding its batch needs",
        "the mean or maximum over positions includes pads, or the last position is a pad",
        "sum over real tokens only, and divide by their number",
        "padding",
    ),
    _cause(
        "padding-target",
        "padding of the target leaks",
        "the loss depends on how much padding a batch needs",
        "real positions attend to pads of the target",
        "a causal mask hides pads on the right; on the left they need a mask of their own",
        "padding",
    ),
    _cause(
        "padding",
        "padding changes the logits",
        "a prediction depends on how much padding its batch needs",
        "pads count somewhere: in attention, in a mean, in a norm",
        "mask pads in every attention and in pooling",
    ),
    _cause(
        "no-target-positions",
        "the decoder has no positions",
        "flat predictions: the same word again and again",
        "positions are not added to the target's embedding, so equal tokens look alike wherever they stand",
        "add positional encodings to the target's embedding as well as to the source's",
        "weak-positions position-range",
    ),
    _cause(
        "no-source-positions",
        "the encoder has no positions",
        "flat predictions: word order makes no difference",
        "positions are not added to the source's embedding: attention alone sees a bag of words",
        "add positional encodings to the source's embedding",
        "weak-positions position-range",
    ),
    _cause(
        "zero-positions",
        "positions are zero",
        "flat predictions until the table is learned",
        "the learned position table starts at zero",
        "nothing if training moves it; otherwise initialize it like the token table",
        "weak-positions",
    ),
    _cause(
        "weak-positions",
        "positions hardly count",
        "flat predictions: word order makes almost no difference",
        "positions are far smaller than the embeddings that they are added to, or the same for many tokens",
        "bring both to the same order of magnitude: see the embedding ratio",
    ),
    _cause(
        "position-range",
        "several positions are the same",
        "word order is lost in parts of the text",
        "position ids are clamped, repeated or start anew within a row",
        "positions run 0, 1, 2 ... along the length",
        "weak-positions",
    ),
    _cause(
        "scale-missing",
        "scores are not divided by sqrt(d_k)",
        "attention is one-hot from the start, gradients vanish",
        "products of d_k terms grow as sqrt(d_k); the softmax saturates",
        "divide scores by sqrt(head_dim) (section 3.2.1 of Attention Is All You Need)",
        "entropy gradient-depth initial-loss",
    ),
    _cause(
        "scale-wrong",
        "scores are scaled by something else than 1/sqrt(d_k)",
        "attention is too sharp or too flat from the start",
        "scaled twice, by d_model instead of head_dim, or multiplied instead of divided",
        "divide scores by sqrt(head_dim), once",
        "entropy gradient-depth",
    ),
    _cause(
        "weights-not-normalized",
        "attention weights do not sum to 1",
        "activations shrink or grow with the length",
        "weights are changed between the softmax and the values",
        "mask before the softmax, and apply nothing but dropout after it",
    ),
    _cause(
        "probabilities",
        "the model returns probabilities instead of logits",
        "the loss hardly moves: it cannot fall below ln V - 1",
        "a softmax stands at the end, and cross entropy applies another",
        "return logits; apply the softmax where probabilities are wanted",
        "initial-loss gradient-depth",
    ),
    _cause(
        "no-gradient",
        "the loss does not reach some weights",
        "the loss stops early; some weights never change",
        "a detach, no_grad, argmax or round stands in the way, or a branch is multiplied by zero",
        "let gradients through to the named weights",
        "gradient-depth unused-parameter",
    ),
    _cause(
        "shared-layers",
        "one layer is used several times",
        "the model has fewer weights than its depth promises",
        "[layer] * n repeats the reference, not the layer",
        "make each layer anew: ModuleList(Layer() for _ in range(n)). ALBERT shares on purpose",
    ),
    _cause(
        "identical-layers",
        "all layers start with the same weights",
        "training is slower than it should be",
        "layers are deep copies of one",
        "initialize each layer anew",
    ),
    _cause(
        "unused-parameter",
        "some weights are never used",
        "weights that never change; distributed training complains",
        "a layer is made but not called, or its result is dropped",
        "call it or remove it",
    ),
    _cause(
        "frozen",
        "some weights are frozen",
        "the loss stops early",
        "requires_grad is False",
        "unfreeze them unless that is what you want",
    ),
    _cause(
        "gradient-depth",
        "gradients vanish on their way down",
        "training stalls unless the warm-up is long: post-LN",
        "each layer shrinks the gradient: post-LN in deep stacks, a missing residual, saturated attention",
        "warm up the learning rate, or normalize before each sublayer (pre-LN)",
    ),
    _cause(
        "initial-loss",
        "the first loss is far above that of guessing",
        "the first steps are spent unlearning; loss spikes",
        "logits are too large at the start: embeddings of unit variance tied to the output, a doubled scale",
        "initialize so that the first loss is about ln V: a standard deviation of 0.02, or d_model**-0.5 where tied",
    ),
    _cause(
        "loss-own-token",
        "the loss wants the input token back: targets are not shifted",
        "training loss near 0, generation repeats its input",
        "logits at position i are compared with target[i], which the decoder was just given",
        "input target[:, :-1], label target[:, 1:]",
        "loss-no-eos",
    ),
    _cause(
        "loss-shift",
        "the loss is shifted too far",
        "the loss stays high, and generation skips words",
        "logits at position i are compared with a token further ahead than the next one",
        "shift once: input target[:, :-1], label target[:, 1:]",
        "loss-no-eos",
    ),
    _cause(
        "loss-padding",
        "padding counts in the loss",
        "the loss looks better the more padding there is; the model learns to predict pads",
        "pads are among the labels, or in the number that the sum is divided by",
        "cross_entropy(..., ignore_index=pad_id), or a masked sum over the number of real labels",
    ),
    _cause(
        "loss-no-eos",
        "the end token does not count in the loss",
        "generation never stops",
        "the end token is cut off, or masked as padding (pad_id == eos_id)",
        "let the label after the last word be the end token, with a pad id of its own",
    ),
    _cause(
        "generate-fails",
        "generate raises an error",
        "generation stops with an error",
        "a step with a cache has other shapes than the full pass, and something does not fit them",
        "see the error: masks and positions of a step are those of its last tokens",
    ),
    _cause(
        "begin-token",
        "generation starts with another token than training",
        "the first word is wrong, and what follows",
        "the decoder is started with something else than bos_id",
        "start with the token that training puts before the target",
        "cache generate-mismatch",
    ),
    _cause(
        "cache",
        "a cached step computes something else than the full pass",
        "generation is worse than the loss promises, from the second token on",
        "the cache is cut, its mask is wrong, or a new token gets position 0",
        "a step must give the logits of the full pass: positions continue at the cache's length, all of it is attended to",
        "generate-mismatch",
    ),
    _cause(
        "generate-mismatch",
        "generate returns other tokens than a greedy loop over the full pass",
        "generation is worse than the loss promises",
        "something differs between training and generation: mode, masks, positions, begin or end token",
        "compare the logits of each step with those of the full pass",
    ),
    _cause(
        "overrun",
        "positions run out before max_length",
        "an index error in production, on the first long text",
        "the position table is shorter than the lengths that the model is said to take",
        "make the table as long as max_length, and check lengths at the door",
    ),
    _cause(
        "silent-overrun",
        "texts beyond the position table are not refused",
        "long texts get worse without an error",
        "ids beyond the table are clamped to its last row, or read as NaN",
        "check lengths before the lookup, or use positions without a table (sinusoidal, rotary)",
    ),
    _cause(
        "entropy",
        "attention is sharp before training",
        "training is slow to start",
        "scores are large at the start",
        "check scale and initialization of queries and keys",
    ),
    _cause(
        "embedding-ratio",
        "embeddings and positions differ much in size",
        "flat predictions, or words that hardly count",
        "embeddings are not scaled by sqrt(d_model), or of another variance than the positions",
        "multiply embeddings by sqrt(d_model) (section 3.4), or give both the same variance",
    ),
    _cause(
        "finite-mask",
        "the mask is a finite number such as -1e4",
        "overflow in float16; a row that is masked everywhere attends to all of it",
        "the number was chosen for half precision",
        "torch.finfo(dtype).min, or -inf where every row attends to something",
    ),
    _cause(
        "no-dropout",
        "no dropout in training mode",
        "overfits",
        "dropout is 0, or its layers are not called",
        "0.1 is what the paper takes",
    ),
    _cause(
        "post-ln",
        "post-LN in a deep stack",
        "diverges without warm-up",
        "gradients near the output are large at the start (Xiong et al., 2020)",
        "warm up the learning rate over the first thousands of steps, or use pre-LN",
    ),
    _cause(
        "quadratic-memory",
        "attention keeps all scores: memory grows with the square of the length",
        "out of memory on long texts",
        "scores of shape (rows, heads, length, length) are materialized",
        "scaled_dot_product_attention (jax.nn.dot_product_attention), which need not keep them",
    ),
    _cause(
        "no-cache",
        "generation computes all tokens again for each new one",
        "generation slows down with length",
        "no key-value cache",
        "keep keys and values of earlier tokens",
    ),
    _cause(
        "shifts-inside",
        "the model shifts its target itself",
        "none, as long as the caller does not shift too",
        "logits at position i depend on tokens before i only",
        "feed the target unshifted, and compare logits[i] with target[i]",
    ),
)

CAUSES: dict[str, Cause] = {cause.key: cause for cause in _CAUSES}
RANK: dict[str, int] = {key: rank for rank, key in enumerate(CAUSES)}


def explains(cause: str, other: str) -> bool:
    """Whether a finding of ``other`` is a consequence of ``cause``."""
    return "everything" in CAUSES[cause].explains or other in CAUSES[cause].explains
