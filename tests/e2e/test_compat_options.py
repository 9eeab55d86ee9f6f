# SPDX-License-Identifier: Apache-2.0
"""What each option of a drop-in face becomes: a text, or a refusal that names the option, its value and the way out."""

import json

import pytest
import torch
from transformers import LlamaConfig

import kvq
from kvq.compat.kivi import LlamaForCausalLM_KIVI, cache_text, place
from kvq.compat.kvq_package import KVQ, KVQCacheConfig
from kvq.compat.kvtuner import (
    FlexibleHQQQuantizedCache,
    FlexibleQuantizedCache,
    FlexibleQuantizedCacheConfig,
    FlexibleQuantoQuantizedCache,
    FlexibleVanillaQuantizedCache,
)
from kvq.compat.options import nearest

LAYER = {"nbits_key": 4, "nbits_value": 2}
C325 = "22,44,44,44,22,42,42,44,42,42,42,42,42,84,42,42,42,84,42,42,42,42,42,42,42,22,42,22,42,44,42,44"
C400 = "88,42,42,82,42,42,44,44,42,44,44,44,44,82" + ",44" * 10 + ",42,42,44,82"


def tuner(kind=FlexibleVanillaQuantizedCache, **options):
    if kind is FlexibleVanillaQuantizedCache:
        options = {"asym": True} | options
    return kind(cache_config=FlexibleQuantizedCacheConfig(**options))


def llama(**options):
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1)
    values = {"k_bits": 2, "v_bits": 2, "group_size": 32, "residual_length": 128} | options
    for name, value in values.items():
        if value is not None:
            setattr(config, name, value)
    return config


# -- what becomes a text ----------------------------------------------------------------------------------------------

TEXTS = [
    (lambda: KVQ({}), "k4t64-v2t64/w128,flush"),
    (lambda: KVQ(KVQCacheConfig(nbits_k=8, nbits_v=8, residual_length=0)), "k8t64-v8t64/w0,flush"),
    (lambda: KVQ({"q_group_size": 48}), "k4t48-v2t48/w128,flush"),
    (lambda: KVQ({"axis_key": -1, "axis_value": -1, "compute_dtype": "float16"}), "k4c64-v2c64/w128,flush"),
    (lambda: KVQ({"device": torch.device("cpu"), "residual_length": 100}), "k4t64-v2t64/w100,flush"),
    (lambda: tuner(), "k4t64-v4t64/w128,flush"),
    (lambda: tuner(nbits=8, nbits_value=2), "k8t64-v2t64/w128,flush"),
    (lambda: tuner(axis_key=1, axis_value=1, q_group_size=128), "k4c128-v4c128/w128,flush"),
    (lambda: tuner(backend="vanilla", axis_value=1, q_group_size=32), "k4t32-v4c32/w128,flush"),
    (lambda: tuner(FlexibleQuantoQuantizedCache, axis_key=-1, q_group_size=32), "k4c32-v4t32/w128,flush"),
    (lambda: tuner(FlexibleHQQQuantizedCache, axis_key=1, axis_value=1, backend="hqq"), "k4t64-v4t64/w128,flush"),
]


@pytest.mark.filterwarnings("ignore:FlexibleHQQQuantizedCache")
@pytest.mark.parametrize("make, text", TEXTS, ids=[text for _, text in TEXTS])
def test_options_become_a_text(make, text):
    cache = make()
    assert cache.format == text
    assert cache.prefill == "raw"


def test_force_quant_becomes_stored_prefill():
    assert tuner(force_quant=True).prefill == "stored"


@pytest.mark.parametrize("size", [64, 80, 96, 128, 256])
def test_a_whole_head_is_known_with_the_head_size(size):
    cache = tuner(q_group_size=-1, residual_length=0, nbits=2)
    assert cache.formats.of(0, size, size) == f"k2t{size}-v2t{size}/w0,flush"
    assert cache.formats.of(3, size, 16) == f"k2t{size}-v2t16/w0,flush", "layers and sides may differ in head size"
    with pytest.raises(kvq.Unsupported, match="q_group_size is -1: V has heads of 72 channels.* no group fits it"):
        cache.formats.of(0, size, 72)
    with pytest.raises(kvq.Unsupported, match="q_group_size is -1: K has heads of 512 channels.* the nearest is"):
        cache.formats.of(0, 512, size)


@pytest.mark.parametrize("table, layers, average", [(C325, 32, 3.25), (C400, 28, 4.0)], ids=["C3.25", "C4.0"])
def test_published_tables_of_kvtuner(table, layers, average):
    pairs = [(int(pair[0]), int(pair[1])) for pair in table.split(",")]
    per_layer = {layer: {"nbits_key": k, "nbits_value": v} for layer, (k, v) in enumerate(pairs)}
    options = {"axis_key": 1, "q_group_size": 32, "residual_length": 32, "per_layer_quant": True}
    cache = tuner(per_layer_config=per_layer, **options)
    texts = [cache.formats.of(layer, 128, 128) for layer in range(layers)]
    assert texts == [f"k{k}c32-v{v}t32/w32,flush" for k, v in pairs]
    assert sum(int(text[1]) + int(text.split("-v")[1][0]) for text in texts) / (2 * layers) == average


@pytest.mark.parametrize(
    "options, text",
    [
        ({}, "k2c32-v2t32/w128,sliding"),
        ({"k_bits": 4, "v_bits": 8, "group_size": 64}, "k4c64-v8t64/w128,sliding"),
        ({"residual_length": 32, "use_flash": True, "w_bit": 16}, "k2c32-v2t32/w32,sliding"),
        ({"k_quant_dim": "channel", "v_quant_dim": "token"}, "k2c32-v2t32/w128,sliding"),
        ({"k_bits": 16, "v_bits": 16}, None),
    ],
)
def test_options_of_kivi_become_a_text(options, text):
    assert cache_text(llama(**options)) == text


def test_a_configuration_keeps_and_shows_its_options():
    config = FlexibleQuantizedCacheConfig(nbits_key=4, asym=True)
    config.nbits_value = 2
    assert FlexibleVanillaQuantizedCache(config).format == "k4t64-v2t64/w128,flush"
    assert FlexibleVanillaQuantizedCache(config.to_dict()).format == "k4t64-v2t64/w128,flush"
    assert config.to_dict()["residual_length"] == 128


@pytest.mark.parametrize("value, choice", [(1, 2), (3, 4), (5, 4), (6, 8), (7, 8), (100, 8)])
def test_the_nearest_choice(value, choice):
    assert nearest(value, (2, 4, 8)) == choice


# -- what is refused --------------------------------------------------------------------------------------------------

V, Q, H = FlexibleVanillaQuantizedCache, FlexibleQuantoQuantizedCache, FlexibleHQQQuantizedCache
REFUSED = [
    (
        lambda: KVQ({"nbit_k": 4}),
        kvq.InvalidArgument,
        "option of KVQCacheConfig 'nbit_k' does not exist: did you mean nbits_k",
    ),
    (
        lambda: KVQCacheConfig(group_size=4),
        kvq.InvalidArgument,
        "'group_size' does not exist: did you mean q_group_size",
    ),
    (
        lambda: setattr(KVQCacheConfig(), "axis_v", 0),
        kvq.InvalidArgument,
        "'axis_v' does not exist: did you mean axis_value",
    ),
    (
        lambda: KVQ("kivi-2"),
        kvq.InvalidArgument,
        "the configuration is 'kivi-2': give a KVQCacheConfig or a dictionary",
    ),
    (lambda: KVQ({"nbits_k": 6}), kvq.Unsupported, "nbits_k is 6: kvq stores 2, 3, 4 or 8 bits, the nearest is 8"),
    (lambda: KVQ({"nbits_v": 16}), kvq.Unsupported, "nbits_v is 16, which means not quantized"),
    (lambda: KVQ({"nbits_v": 4.0}), kvq.InvalidArgument, "nbits_v is 4.0: give a whole number"),
    (lambda: KVQ({"nbits_v": True}), kvq.InvalidArgument, "nbits_v is True: give a whole number"),
    (
        lambda: KVQ({"axis_key": 1}),
        kvq.InvalidArgument,
        "axis_key is 1: quanto's axes are 0 (per token) and -1 (per channel)",
    ),
    (
        lambda: KVQ({"q_group_size": 40}),
        kvq.Unsupported,
        "q_group_size is 40: a group of kvq per token is a multiple of 16",
    ),
    (lambda: KVQ({"q_group_size": 40}), kvq.Unsupported, "the nearest is 48"),
    (lambda: KVQ({"q_group_size": 0}), kvq.Unsupported, "q_group_size is 0"),
    (lambda: KVQ({"q_group_size": 16, "axis_key": -1}), kvq.Unsupported, "is 32, 64, 128 or 256 tokens, the nearest is 32"),
    (
        lambda: KVQ({"axis_key": -1, "residual_length": 0}),
        kvq.Unsupported,
        "residual_length is 0: with these axes kvq takes a "
        "multiple of q_group_size = 64, 64 to 65536, the nearest is 64",
    ),
    (lambda: KVQ({"axis_key": -1, "residual_length": 100}), kvq.Unsupported, "the nearest is 128"),
    (
        lambda: KVQ({"residual_length": -1}),
        kvq.Unsupported,
        "residual_length is -1: with these axes kvq takes 0 to 65536",
    ),
    (lambda: KVQ({"backend": "hqq"}), kvq.Unsupported, "backend is 'hqq': the package kvq has one back end"),
    (lambda: KVQ({"compute_dtype": torch.float64}), kvq.Unsupported, "compute_dtype is torch.float64"),
    (lambda: KVQ({"compute_dtype": "half precision"}), kvq.Unsupported, "compute_dtype is 'half precision'"),
    (lambda: KVQ({"device": "cuda"}), kvq.Unsupported, "device is 'cuda': this version of kvq runs on the CPU"),
    (lambda: KVQ({"device": torch.device("cuda:1")}), kvq.Unsupported, "device is 'cuda:1'"),
    (lambda: KVQ({"device": "gpu"}), kvq.InvalidArgument, "device is 'gpu', which is no device"),
    (lambda: tuner(device="cuda"), kvq.Unsupported, "device is 'cuda': this version of kvq runs on the CPU"),
    (lambda: tuner(backend="cuda"), kvq.InvalidArgument, "backend 'cuda' does not exist"),
    (
        lambda: tuner(backend="quanto"),
        kvq.InvalidArgument,
        "backend is 'quanto' where FlexibleVanillaQuantizedCache is",
    ),
    (
        lambda: tuner(Q, backend="vanilla"),
        kvq.InvalidArgument,
        "backend is 'vanilla' where FlexibleQuantoQuantizedCache",
    ),
    (lambda: tuner(asym=False), kvq.Unsupported, "asym is False: kvq's codes have a scale and a minimum"),
    (lambda: tuner(H, asym=False), kvq.Unsupported, "asym is False"),
    (
        lambda: tuner(asym=None),
        kvq.Unsupported,
        "asym is not given, which means symmetric in KVTuner's FlexibleVanilla",
    ),
    (lambda: tuner(asym="False"), kvq.InvalidArgument, "asym is 'False': give True or False"),
    (lambda: tuner(force_quant=1), kvq.InvalidArgument, "force_quant is 1: give True or False"),
    (
        lambda: tuner(axis_key=-1),
        kvq.Unsupported,
        "axis_key is -1 in FlexibleVanillaQuantizedCache: give 0 (per token) or 1",
    ),
    (lambda: tuner(Q, axis_value=1), kvq.Unsupported, "axis_value is 1 in FlexibleQuantoQuantizedCache"),
    (
        lambda: tuner(H),
        kvq.Unsupported,
        "axis_key is 0 in FlexibleHQQQuantizedCache: HQQ's axis 0 groups values of several",
    ),
    (
        lambda: tuner(axis_value=1, q_group_size=-1),
        kvq.Unsupported,
        "q_group_size is -1, the whole head, which exists per "
        "token only, while V is quantized per channel: give 32, 64, 128 or 256",
    ),
    (
        lambda: tuner(nbits=-1),
        kvq.InvalidArgument,
        "nbits is -1, which leaves the bits to the layers: set per_layer_quant",
    ),
    (lambda: tuner(nbits_value=-1), kvq.InvalidArgument, "nbits_value is -1"),
    (lambda: tuner(nbits_key=1), kvq.Unsupported, "nbits_key is 1: kvq stores 2, 3, 4 or 8 bits, the nearest is 2"),
    (lambda: tuner(per_head_quant=True), kvq.Unsupported, "per_head_quant is True: kvq has one format for all heads"),
    (lambda: tuner(per_head_config={0: {0: LAYER}}), kvq.Unsupported, "per_head_config is given"),
    (lambda: tuner(per_head_config_path="heads.yaml"), kvq.Unsupported, "per_head_config_path is given"),
    (
        lambda: tuner(per_layer_config={0: LAYER}),
        kvq.InvalidArgument,
        "per_layer_config is given and per_layer_quant is False",
    ),
    (
        lambda: tuner(per_layer_quant=True),
        kvq.InvalidArgument,
        "per_layer_quant is True with neither of per_layer_config",
    ),
    (
        lambda: tuner(per_layer_quant=True, per_layer_config={0: LAYER}, per_layer_config_path="x"),
        kvq.InvalidArgument,
        "with both of per_layer_config and per_layer_config_path: give one",
    ),
    (
        lambda: tuner(per_layer_quant=True, per_layer_config={0: LAYER}, nbits_key=4),
        kvq.InvalidArgument,
        "nbits_key is 4 beside per_layer_quant=True",
    ),
    (lambda: FlexibleQuantizedCache({}), kvq.InvalidArgument, "FlexibleQuantizedCache has no quantizer of its own"),
]


@pytest.mark.parametrize("make, error, said", REFUSED, ids=[said[:50] for _, _, said in REFUSED])
def test_refused_by_name(make, error, said):
    with pytest.raises(error) as caught:
        make()
    assert type(caught.value) is error
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


TABLES = [
    ({}, "per_layer_config is {}: give {layer: "),
    ([LAYER], "per_layer_config is [{"),
    ({0: LAYER, 2: LAYER}, "per_layer_config has no layer 1: give one entry for each of the layers 0 to 2"),
    ({0: LAYER, "0": LAYER}, "per_layer_config has layer 0 twice"),
    ({"first": LAYER}, "per_layer_config has the key 'first': keys are the numbers of layers"),
    ({-1: LAYER}, "per_layer_config has the key -1"),
    ({True: LAYER}, "per_layer_config has the key True"),
    ({0: 4}, "per_layer_config[0] is 4: give"),
    ({0: {"nbits_key": 4}}, "per_layer_config[0] has no nbits_value"),
    (
        {0: LAYER | {"group": 32}},
        "per_layer_config[0]: the key 'group' does not exist: there are nbits_key, nbits_value",
    ),
    ({0: LAYER | {"nbits_keys": 2}}, "did you mean nbits_key"),
    ({0: {"nbits_key": 5, "nbits_value": 2}}, 'per_layer_config[0]["nbits_key"] is 5: kvq stores 2, 3, 4 or 8 bits'),
    ({0: {"nbits_key": 16, "nbits_value": 2}}, 'per_layer_config[0]["nbits_key"] is 16, which means not quantized'),
]


@pytest.mark.parametrize("table, said", TABLES, ids=[said for _, said in TABLES])
def test_tables_of_layers_that_are_refused(table, said):
    with pytest.raises(kvq.Error) as caught:
        tuner(per_layer_quant=True, per_layer_config=table)
    assert said in str(caught.value)


FILES = [
    ("layers.yaml", "0: {nbits_key: 4, nbits_value: 2}\n0: {nbits_key: 8, nbits_value: 8}\n", "0 stands there twice"),
    ("layers.json", '{"0": {"nbits_key": 4, "nbits_value": 2}, "0": {}}', "'0' stands there twice"),
    ("layers.yaml", "0: {nbits_key: 4, nbits_key: 2}", "'nbits_key' stands there twice"),
    ("layers.yaml", "0: [", "which is not a table of layers: while parsing"),
    ("layers.json", "{", "which is not a table of layers: Expecting"),
    ("layers.yaml", "? [1]\n: 2", "which is not a table of layers"),
    ("layers.yaml", "- 4", "layers.yaml is [4]: give {layer: "),
    ("layers.yaml", "!!python/object/apply:os.getcwd []", "which is not a table of layers"),
    ("missing.yaml", None, "which cannot be read: No such file"),
]


@pytest.mark.parametrize("name, content, said", FILES, ids=[said for _, _, said in FILES])
def test_files_of_layers_that_are_refused(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(kvq.InvalidArgument) as caught:
        tuner(per_layer_quant=True, per_layer_config_path=str(tmp_path / name))
    assert said in str(caught.value) and name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_may_be_indented_with_tabs(tmp_path):
    file = tmp_path / "layers.json"
    file.write_text(json.dumps({"0": LAYER, "1": {"nbits_key": 8, "nbits_value": 8}}, indent="\t"))
    cache = tuner(per_layer_quant=True, per_layer_config_path=file)
    assert [cache.formats.of(layer, 64, 64)[:9] for layer in (0, 1)] == ["k4t64-v2t", "k8t64-v8t"]


KIVI_REFUSED = [
    ({"k_bits": None}, kvq.InvalidArgument, "config.k_bits is not set: KIVI reads k_bits, v_bits, group_size and"),
    ({"residual_length": None}, kvq.InvalidArgument, "config.residual_length is not set"),
    ({"k_bits": 5}, kvq.Unsupported, "k_bits is 5: kvq stores 2, 3, 4 or 8 bits, the nearest is 4"),
    ({"v_bits": 16}, kvq.Unsupported, "v_bits is 16 beside k_bits = 2: kvq quantizes K and V or neither"),
    ({"k_bits": 16}, kvq.Unsupported, "k_bits is 16 beside v_bits = 2"),
    (
        {"group_size": 16},
        kvq.Unsupported,
        "group_size is 16: a group of kvq per channel is 32, 64, 128 or 256 tokens, the nearest is 32",
    ),
    (
        {"group_size": 128},
        kvq.Unsupported,
        "group_size is 128: V has heads of 64 channels, and a group per token is a multiple "
        "of 16, at most 256, that divides them; the nearest is 64",
    ),
    ({"group_size": -1}, kvq.Unsupported, "group_size is -1, the whole head, which exists per token only"),
    (
        {"residual_length": 100},
        kvq.Unsupported,
        "residual_length is 100: with these axes kvq takes a multiple of group_size = 32, "
        "32 to 65536, the nearest is 96",
    ),
    ({"residual_length": 0}, kvq.Unsupported, "residual_length is 0"),
    ({"residual_length": "128"}, kvq.InvalidArgument, "residual_length is '128': give a whole number"),
    ({"use_flash": False}, kvq.Unsupported, "use_flash is False: KIVI asserts that it is True"),
    (
        {"k_quant_dim": "token"},
        kvq.Unsupported,
        "k_quant_dim is 'token': KIVI never reads it and behaves as with 'channel'",
    ),
    ({"w_bit": 4}, kvq.Unsupported, "w_bit is 4"),
]


@pytest.mark.parametrize("options, error, said", KIVI_REFUSED, ids=[said[:40] for _, _, said in KIVI_REFUSED])
def test_options_of_kivi_that_are_refused(options, error, said):
    with pytest.raises(error) as caught:
        LlamaForCausalLM_KIVI(llama(**options))
    assert said in str(caught.value)


@pytest.mark.parametrize("device_map", [None, "auto", "balanced", "cpu", torch.device("cpu"), {"": "cpu"}])
def test_device_maps_that_mean_the_cpu(device_map):
    place(device_map)


@pytest.mark.parametrize(
    "device_map", ["cuda", "cuda:0", 0, {"": 0}, {"": "disk"}, {"": "cpu", "lm_head": "cuda"}, "gpu"]
)
def test_device_maps_that_are_refused(device_map):
    with pytest.raises(kvq.Error, match="device_map is"):
        LlamaForCausalLM_KIVI.from_pretrained("no such model", device_map=device_map)


def test_auto_says_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(
        UserWarning, match='device_map is "auto" and there is a GPU: this version of kvq runs on the CPU'
    ):
        place("auto")


def test_a_cache_implementation_beside_kivi_is_refused():
    model = LlamaForCausalLM_KIVI(llama())
    with pytest.raises(
        kvq.InvalidArgument, match="cache_implementation is 'static' where LlamaForCausalLM_KIVI has a cache"
    ):
        model.generate(torch.ones(1, 2, dtype=torch.long), cache_implementation="static")
