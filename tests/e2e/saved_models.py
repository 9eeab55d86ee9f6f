# SPDX-License-Identifier: Apache-2.0
"""Tiny models with random weights on disk, each with a tokenizer of bytes, for programs that load a model by name."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

LAYERS = 3
KV_HEADS = 2
HEAD = 64
SIZES = {
    "vocab_size": 288,
    "hidden_size": 256,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "max_position_embeddings": 2048,
    "bos_token_id": None,
    "eos_token_id": None,  # so that generate() runs to the end
    "pad_token_id": 256,
}


def save_llama(folder):
    return _save(LlamaForCausalLM, LlamaConfig(**SIZES), folder)


def save_mistral(folder, sliding_window=None):
    return _save(MistralForCausalLM, MistralConfig(**SIZES, sliding_window=sliding_window), folder)


def _save(model_class, config, folder):
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return str(folder)


def _tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
