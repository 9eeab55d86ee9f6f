# SPDX-License-Identifier: Apache-2.0
"""A model folder as a user has it on disk, in miniature: a random Llama with a tokenizer of single characters."""

import string

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["</s>", "<user>", "<answer>"]
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " \n"
TEMPLATE = (
    "{% for message in messages %}{{ '<user>' if message.role == 'user' else '<answer>' }}{{ message.content }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
)
PROSE = " ".join(f"The {word} of number {number} is as long as it is wide." for number, word in enumerate(
    ("table", "garden", "window", "river", "kettle", "lantern", "fence", "bridge", "mill", "yard") * 6))


def save_model(folder, *, positions=512, seed=0, head_dim=32, tokenizer=True, template=True):
    """Weights large enough that the likeliest token stands out."""
    vocabulary = {text: index for index, text in enumerate([*SPECIAL, *CHARACTERS])}
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=head_dim, max_position_embeddings=positions, bos_token_id=None, eos_token_id=0,
        initializer_range=0.3,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    if tokenizer:
        fast = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        fast.decoder = decoders.Fuse()
        wrapped = PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="</s>", pad_token="</s>",
                                          extra_special_tokens=SPECIAL[1:], clean_up_tokenization_spaces=False)
        if template:
            wrapped.chat_template = TEMPLATE
        wrapped.save_pretrained(folder)
    return folder
