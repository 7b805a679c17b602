"""Checkpoints of Hugging Face's ``transformers``, read and written; numpy, safetensors and tokenizers only.

A :class:`~flax_transformer.interop.huggingface.family.Family` is a table of one model type: which setting is which
field of ``ModelConfig``, and which key is which weight. The same table imports and exports.
"""
