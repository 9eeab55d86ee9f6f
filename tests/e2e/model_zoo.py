# SPDX-License-Identifier: Apache-2.0
"""Tiny random-weight models of every kind that the README's table lists, and what kvq does with each.

A model is small in everything but the sizes that matter to a cache: head sizes, ratios, windows, caps and sinks are
those of the real models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers

IN_PLACE = "in place"
FALLS_BACK = "falls back: dense K and V are rebuilt in every step, with one warning"
REFUSED = "refused: use `transformers.DynamicCache`"

COMMON = dict(
    vocab_size=128,
    hidden_size=64,
    intermediate_size=96,
    max_position_embeddings=1024,
    bos_token_id=1,
    eos_token_id=None,
    pad_token_id=0,
)


@dataclass(frozen=True)
class Entry:
    name: str  # as the table shows it
    what: str  # what is special for a cache
    outcome: str
    make: Callable[[], torch.nn.Module]
    format: str = "k8c32-v8t16/w32,block"
    windows: tuple[int, ...] = ()  # of the layers; empty: all see everything


def _causal(config: transformers.PreTrainedConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def llama(**changes) -> torch.nn.Module:
    sizes = dict(hidden_size=96, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, head_dim=64)
    return _causal(transformers.LlamaConfig(**(COMMON | sizes | changes)))


def mistral() -> torch.nn.Module:
    return _causal(
        transformers.MistralConfig(
            **COMMON, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, head_dim=128, sliding_window=40
        )
    )


def qwen3() -> torch.nn.Module:
    return _causal(
        transformers.Qwen3Config(
            **COMMON, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=128
        )
    )


def gemma2() -> torch.nn.Module:
    return _causal(
        transformers.Gemma2Config(
            **COMMON,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=256,
            sliding_window=40,
            attn_logit_softcapping=5.0,
            query_pre_attn_scalar=4,
        )
    )


def gemma3() -> torch.nn.Module:
    return _causal(
        transformers.Gemma3TextConfig(
            **COMMON,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=256,
            sliding_window=40,
            query_pre_attn_scalar=16,
        )
    )


def phi3() -> torch.nn.Module:
    changes = COMMON | dict(hidden_size=192, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    return _causal(transformers.Phi3Config(**changes))


def gpt_oss() -> torch.nn.Module:
    model = _causal(
        transformers.GptOssConfig(
            **COMMON,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=1,
            head_dim=64,
            sliding_window=40,
            num_local_experts=2,
            num_experts_per_tok=1,
        )
    )
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.sinks, mean=1.0)
    return model


def deepseek_v3() -> torch.nn.Module:
    return _causal(
        transformers.DeepseekV3Config(
            **COMMON,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            q_lora_rank=16,
            kv_lora_rank=64,
            qk_nope_head_dim=32,
            qk_rope_head_dim=16,
            v_head_dim=32,
            first_k_dense_replace=2,
            n_routed_experts=4,
            num_experts_per_tok=1,
            n_group=1,
            topk_group=1,
            moe_intermediate_size=32,
        )
    )


def bart() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=128,
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    )
    return transformers.BartForConditionalGeneration(config).eval()


def t5() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=128,
        d_model=64,
        d_kv=16,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return transformers.T5ForConditionalGeneration(config).eval()


def llama4() -> torch.nn.Module:
    return _causal(
        transformers.Llama4TextConfig(
            **COMMON,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            num_local_experts=2,
            intermediate_size_mlp=96,
            attention_chunk_size=32,
        )
    )


ZOO = [
    Entry("Llama", "D 64, 3 query heads per KV head", IN_PLACE, llama),
    Entry("Mistral", "D 128, every layer sees a window", IN_PLACE, mistral, windows=(40, 40)),
    Entry("Qwen3", "D 128, normalized q and k", IN_PLACE, qwen3),
    Entry("Gemma 2", "D 256, score cap, local and global layers", IN_PLACE, gemma2, windows=(40, 0, 40, 0)),
    Entry("Gemma 3", "D 256, five local layers to a global one", IN_PLACE, gemma3, windows=(40,) * 5 + (0,)),
    Entry("Phi-3", "D 96", IN_PLACE, phi3),
    Entry("GPT-OSS", "sink logits, local and global layers", IN_PLACE, gpt_oss, windows=(40, 0)),
    Entry("DeepSeek-V3", "MLA: a latent vector of rank 64 and a rotary key", FALLS_BACK, deepseek_v3),
    Entry("BART", "encoder and decoder: `EncoderDecoderCache(KVQCache(config), DynamicCache())`", IN_PLACE, bart),
    Entry("T5", "encoder and decoder, position bias: the same", FALLS_BACK, t5),
    Entry("Llama 4", "chunked attention", REFUSED, llama4),
]
