# SPDX-License-Identifier: Apache-2.0
"""Programs written for the published methods run as they stand, and store what their options say.

Each SNIPPET is the text of the method's own README; what a test replaces in it (the model's name, the device, and one
syntax error) it replaces in view.
"""

import copy
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import saved_models
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

import kvq
import kvq.compat.shim
from kvq import KVQ, KVQCache, KVQCacheConfig, lowlevel
from kvq.compat.kivi import LlamaForCausalLM_KIVI, MistralForCausalLM_KIVI, cache_text
from kvq.compat.kvtuner import (
    FlexibleQuantizedCacheConfig,
    FlexibleQuantoQuantizedCache,
    FlexibleVanillaQuantizedCache,
)

ROOT = Path(__file__).resolve().parents[2]
NEW = 24
LONG = 90  # new tokens that fill the window of 128 behind a prompt of 44
KIVI_OPTIONS = {"k_bits": 2, "v_bits": 4, "group_size": 32, "residual_length": 64}
KIVI_TEXT = "k2c32-v4t32/w64,sliding"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_models.save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="kvq").eval()


@pytest.fixture(scope="module")
def dense(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def inputs():
    ids = torch.randint(1, 256, (1, 200), generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


def run(snippet, **names):
    exec(compile(snippet, "snippet", "exec"), names)  # noqa: S102 (the text stands in this file)
    return names


def generate(model, inputs, cache, **options):
    options = {"max_new_tokens": NEW, "do_sample": False} | options
    return model.generate(**inputs, past_key_values=cache, **options)


def check_stored(cache, texts):
    """The bytes of the pages are those of these formats: one text a layer, or one for all."""
    per_layer = texts if isinstance(texts, list) else [texts] * saved_models.LAYERS
    assert cache.format == (texts if len(set(per_layer)) > 1 else per_layer[0])
    blocks = cache.report()["blocks_used"] // len(set(per_layer))  # of a group of layers: all groups have as many
    page = sum(lowlevel.format_page_bytes(text, saved_models.HEAD, saved_models.HEAD) for text in per_layer)
    assert blocks > 0
    assert cache.report()["page_bytes_used"] == blocks * saved_models.KV_HEADS * page


# -- the package kvq --------------------------------------------------------------------------------------------------

KVQ_CONFIG = """
import torch
from kvq import KVQ, KVQCacheConfig

config = KVQCacheConfig(
    nbits_k=4,
    nbits_v=2,
    axis_key=0,
    axis_value=0,
    q_group_size=64,
    residual_length=128,
    compute_dtype=torch.bfloat16,
    backend="quanto",
    device=model.device,
)
kvq = KVQ(config)
"""

KVQ_DICT = """
kvq_dict = {
    "nbits_k": 4,
    "nbits_v": 2,
    "axis_key": 0,
    "axis_value": 0,
    "q_group_size": 64,
    "residual_length": 128,
    "compute_dtype": torch.bfloat16,
    "backend": "quanto",
    "device": model.device,
}
kvq = KVQ(kvq_dict)
"""

KVQ_GENERATE = """
outputs = model.generate(
    **inputs,
    max_new_tokens=1024,
    use_cache=True,
    past_key_values=kvq,
)
print(outputs)
"""


@pytest.mark.parametrize("snippet", [KVQ_CONFIG, KVQ_DICT], ids=["config", "dict"])
@pytest.mark.parametrize("implementation", ["kvq", "sdpa"])
def test_snippet_of_the_package_kvq(model, dense, inputs, snippet, implementation):
    subject = model if implementation == "kvq" else dense
    names = run(snippet + KVQ_GENERATE.replace("1024", str(NEW)), model=subject, inputs=inputs, torch=torch, KVQ=KVQ)
    text = "k4t64-v2t64/w128,flush"
    check_stored(names["kvq"], text)
    # 64 tokens of 64 channels: K has 2048 bytes of codes, V 1024, each 128 of scales and 128 of minima.
    assert names["kvq"].report()["page_bytes_used"] == 2 * saved_models.LAYERS * saved_models.KV_HEADS * (2304 + 1280)
    expected = generate(subject, inputs, KVQCache(subject.config, text, prefill="raw"))
    assert torch.equal(names["outputs"], expected)
    assert names["outputs"].shape == (1, 200 + NEW)


def test_per_channel_of_the_package_kvq_is_axis_minus_one(model, inputs):
    cache = KVQ({"nbits_k": 4, "nbits_v": 2, "axis_key": -1, "q_group_size": 32, "residual_length": 64})
    got = generate(model, inputs, cache)
    check_stored(cache, "k4c32-v2t32/w64,flush")
    assert torch.equal(got, generate(model, inputs, KVQCache(model.config, "k4c32-v2t32/w64,flush", prefill="raw")))


def test_fewer_bits_for_keys_than_for_values_are_said():
    with pytest.warns(UserWarning, match="nbits_k is 2 and nbits_v is 4"):
        KVQ(KVQCacheConfig(nbits_k=2, nbits_v=4))


# -- KVTuner ----------------------------------------------------------------------------------------------------------

KVTUNER = """
# Define your model
from transformers import AutoTokenizer, AutoModelForCausalLM, 
model_name = 'meta-llama/Meta-Llama-3-8B'
model = AutoModelForCausalLM.from_pretrained(model_name, torch_dtype=torch.float16).cuda()
tokenizer = AutoTokenizer.from_pretrained(model_name, use_fast=False, trust_remote_code=True)

# Define the cache
from flexible_quant.flexible_quantized_cache import FlexibleQuantizedCacheConfig, FlexibleVanillaQuantizedCache
cache_config = FlexibleQuantizedCacheConfig(nbits_key=4, nbits_value=4, asym=True, axis_key=0, axis_value=0, device='cuda', q_group_size=-1)
# By default we use FlexibleVanillaQuantizedCache, you can switch to FlexibleHQQQuantizedCache and FlexibleQuantoQuantizedCache
past_key_values = FlexibleVanillaQuantizedCache(cache_config=cache_config)

# Prompt and generate
prompt = '''The quick brown fox jumps over the lazy dog.'''
inputs = tokenizer(prompt, return_tensors="pt").input_ids.cuda()
outputs = model.generate(inputs, past_key_values=past_key_values, use_cache=True, max_new_tokens=256)
"""


def kvtuner_snippet(folder):
    with pytest.raises(SyntaxError):
        compile(KVTUNER, "as published: the import ends with a comma", "exec")
    text = KVTUNER.replace("AutoModelForCausalLM, \n", "AutoModelForCausalLM\n")
    text = text.replace("max_new_tokens=256", f"max_new_tokens={LONG}")
    return text.replace("meta-llama/Meta-Llama-3-8B", folder).replace("cuda", "cpu")


def test_snippet_of_kvtuner(folder):
    names = run(kvtuner_snippet(folder), torch=torch)
    text = "k4t64-v4t64/w128,flush"
    check_stored(names["past_key_values"], text)
    subject = names["model"]
    cache = KVQCache(subject.config, text, prefill="raw")
    assert torch.equal(names["outputs"], subject.generate(names["inputs"], past_key_values=cache, max_new_tokens=LONG))
    assert subject.dtype == torch.float16 and names["outputs"].shape[1] == 44 + LONG


def test_snippet_of_kvtuner_with_another_class(folder):
    text = kvtuner_snippet(folder)

    def swap(name):
        return text.replace("Config, FlexibleVanillaQuantizedCache", f"Config, {name}").replace(
            "past_key_values = FlexibleVanillaQuantizedCache", f"past_key_values = {name}"
        )

    names = run(swap("FlexibleQuantoQuantizedCache"), torch=torch)
    check_stored(names["past_key_values"], "k4t64-v4t64/w128,flush")
    with pytest.raises(kvq.Unsupported, match="axis_key is 0 in FlexibleHQQQuantizedCache: HQQ's axis 0 groups"):
        run(swap("FlexibleHQQQuantizedCache"), torch=torch)
    with pytest.warns(UserWarning, match="half-quadratic"):
        tokens = run(re.sub(r"(axis_\w+)=0", r"\1=1", swap("FlexibleHQQQuantizedCache")), torch=torch)
    check_stored(tokens["past_key_values"], "k4t64-v4t64/w128,flush")


# KVTuner's published modes (its README's two commands), and what each becomes.
MODES = {
    "KIVI mode": ({"axis_key": 1, "axis_value": 0, "q_group_size": 32, "residual_length": 32}, "c32", "t32", 32),
    "per-token mode": ({"axis_key": 0, "axis_value": 0, "q_group_size": -1, "residual_length": 0}, "t64", "t64", 0),
}
C325 = "22,44,44,44,22,42,42,44,42,42,42,42,42,84,42,42,42,84,42,42,42,42,42,42,42,22,42,22,42,44,42,44"


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_kvtuner(model, inputs, mode):
    options, k, v, window = MODES[mode]
    config = FlexibleQuantizedCacheConfig(nbits_key=8, nbits_value=4, asym=True, **options)
    cache, text = FlexibleVanillaQuantizedCache(cache_config=config), f"k8{k}-v4{v}/w{window},flush"
    got = generate(model, inputs, cache)
    check_stored(cache, text)
    assert torch.equal(got, generate(model, inputs, KVQCache(model.config, text, prefill="raw")))


@pytest.mark.parametrize("source", ["dictionary", "yaml", "json"])
@pytest.mark.parametrize("mode", MODES)
def test_bits_of_each_layer_are_real_bits(model, inputs, tmp_path, source, mode):
    """The first three layers of KVTuner's C3.25 for Llama-3.1-8B, and the bytes that they take."""
    table = {
        layer: {"nbits_key": int(pair[0]), "nbits_value": int(pair[1])}
        for layer, pair in enumerate(C325.split(",")[: saved_models.LAYERS])
    }
    options, k, v, window = MODES[mode]
    options = options | {"nbits_key": -1, "nbits_value": -1, "asym": True, "per_layer_quant": True}
    if source == "dictionary":
        options["per_layer_config"] = table
    else:
        options["per_layer_config_path"] = tmp_path / f"layers.{source}"
        lines = [f"{n}:\n  nbits_key: {e['nbits_key']}\n  nbits_value: {e['nbits_value']}\n" for n, e in table.items()]
        as_json = repr({str(layer): entry for layer, entry in table.items()}).replace("'", '"')
        options["per_layer_config_path"].write_text("".join(lines) if source == "yaml" else as_json)
    cache = FlexibleVanillaQuantizedCache(FlexibleQuantizedCacheConfig(**options))
    texts = [f"k{kb}{k}-v{vb}{v}/w{window},flush" for kb, vb in ((2, 2), (4, 4), (4, 4))]
    got = generate(model, inputs, cache)
    check_stored(cache, texts)
    assert torch.equal(got, generate(model, inputs, KVQCache(model.config, texts, prefill="raw")))


@pytest.mark.parametrize("group, axis", [(-1, 0), (32, 1)], ids=["whole head", "fixed group"])
@pytest.mark.parametrize("entries", [saved_models.LAYERS - 1, saved_models.LAYERS + 1])
@pytest.mark.parametrize("implementation", ["kvq", "sdpa"])
def test_a_table_of_another_number_of_layers_is_refused(model, dense, inputs, entries, group, axis, implementation):
    table = {layer: {"nbits_key": 4, "nbits_value": 4} for layer in range(entries)}
    options = {"asym": True, "per_layer_quant": True, "axis_key": axis, "q_group_size": group}
    cache = FlexibleVanillaQuantizedCache(FlexibleQuantizedCacheConfig(per_layer_config=table, **options))
    subject = model if implementation == "kvq" else dense
    with pytest.raises(kvq.InvalidArgument, match=f"{entries} (layers|entries) where the model has"):
        generate(subject, inputs, cache)


def test_force_quant_shows_a_prompt_its_own_quantized_tokens(model, dense, inputs):
    options = {"nbits_key": 2, "nbits_value": 2, "asym": True, "residual_length": 32}
    logits = {}
    for force in (False, True):
        cache = FlexibleVanillaQuantizedCache(FlexibleQuantizedCacheConfig(force_quant=force, **options))
        logits[force] = model(**inputs, past_key_values=cache).logits
        plain = KVQCache(model.config, "k2t64-v2t64/w32,flush", prefill="stored" if force else "raw")
        assert torch.equal(logits[force], model(**inputs, past_key_values=plain).logits)
    exact = model(**inputs, past_key_values=DynamicCache(config=model.config)).logits
    assert (logits[False] - exact).abs().max() < 1e-5 < 1e-3 < (logits[True] - exact).abs().max()
    cache = FlexibleVanillaQuantizedCache(FlexibleQuantizedCacheConfig(force_quant=True, **options))
    with pytest.raises(kvq.Unsupported, match='force_quant is True, and only attn_implementation="kvq"'):
        generate(dense, inputs, cache)


# -- KIVI -------------------------------------------------------------------------------------------------------------

KIVI = """
# LLaMA model with KIVI
import torch
import os
from models.llama_kivi import LlamaForCausalLM_KIVI
from transformers import LlamaConfig, AutoTokenizer
config = LlamaConfig.from_pretrained("meta-llama/Llama-2-7b-hf")

config.k_bits = K_BITS # current support 2/4 bit for KV Cache
config.v_bits = V_BITS # current support 2/4 bit for KV Cache
config.group_size = GROUP_SIZE
config.residual_length = RESIDUAL_LENGTH # the number of recent fp16 tokens
CACHE_DIR = PATH_TO_YOUR_SAVE_DIR

model = LlamaForCausalLM_KIVI.from_pretrained(
    pretrained_model_name_or_path='meta-llama/Llama-2-7b-hf',
    config=config,
    cache_dir=CACHE_DIR,
    torch_dtype=torch.float16,
    low_cpu_mem_usage=True,
    device_map="auto",
)

tokenizer = AutoTokenizer.from_pretrained(
    'meta-llama/Llama-2-7b-hf', 
    use_fast=False, 
    trust_remote_code=True, 
    tokenizer_type='llama')

# Inference
# e.g., model.generate(...)
"""


def kivi_snippet(folder, tmp_path):
    # The kind of tokenizer belongs to the model's name; transformers 5 knows none of the kind 'llama' in any case.
    text = KIVI.replace("meta-llama/Llama-2-7b-hf", folder).replace("tokenizer_type='llama'", "tokenizer_type='gpt2'")
    return run(text, K_BITS=2, V_BITS=4, GROUP_SIZE=32, RESIDUAL_LENGTH=64, PATH_TO_YOUR_SAVE_DIR=str(tmp_path))


def kivi(folder, model_class=LlamaForCausalLM_KIVI, **options):
    config = model_class.config_class.from_pretrained(folder)
    for name, value in (KIVI_OPTIONS | options).items():
        setattr(config, name, value)
    return model_class.from_pretrained(folder, config=config).eval()


def test_snippet_of_kivi(folder, tmp_path):
    names = kivi_snippet(folder, tmp_path)
    model = names["model"]
    inputs = names["tokenizer"]("The quick brown fox jumps over the lazy dog. " * 4, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True)
    check_stored(output.past_key_values, KIVI_TEXT)
    assert model.dtype == torch.float16 and model.config._attn_implementation == "kvq"
    plain = KVQCache(model.config, KIVI_TEXT, prefill="raw")
    assert torch.equal(output.sequences, generate(model, inputs, plain))


def test_device_map_auto_needs_no_accelerate(folder):
    """In a process of its own, in which accelerate cannot be imported."""
    program = (
        "import sys; sys.modules['accelerate'] = None\n"
        "from transformers.utils import is_accelerate_available\n"
        "from kvq.compat.kivi import LlamaForCausalLM_KIVI\n"
        "config = LlamaForCausalLM_KIVI.config_class.from_pretrained(sys.argv[1])\n"
        "config.k_bits, config.v_bits, config.group_size, config.residual_length = 2, 2, 32, 32\n"
        "model = LlamaForCausalLM_KIVI.from_pretrained(sys.argv[1], config=config, device_map='auto')\n"
        "print(model.device, hasattr(model, 'hf_device_map'))\n"
    )
    result = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["cpu", "False"]


WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "chunked prefill": {"prefill_chunk_size": 64},
}


@pytest.mark.parametrize("way", WAYS)
def test_generate_of_kivi_makes_its_own_cache(folder, inputs, way):
    model = kivi(folder)
    results = []
    for cache in (None, KVQCache(model.config, KIVI_TEXT, prefill="raw")):
        torch.manual_seed(1)
        results.append(generate(model, inputs, cache, return_dict_in_generate=True, **WAYS[way]))
    assert torch.equal(results[0].sequences, results[1].sequences)
    check_stored(results[0].past_key_values, KIVI_TEXT)
    again = generate(model, inputs, None)
    assert torch.equal(again, generate(model, inputs, None)), "a second generate() begins with an empty cache"


def test_kivi_without_a_cache(folder, inputs):
    model = kivi(folder)
    for options in ({"use_cache": False}, {"generation_config": copy.deepcopy(model.generation_config)}):
        if "generation_config" in options:
            options["generation_config"].use_cache = False
        output = generate(model, inputs, None, return_dict_in_generate=True, **options)
        assert output.past_key_values is None
    exact = generate(model, inputs, DynamicCache(config=model.config))
    assert torch.equal(output.sequences, exact)
    assert model(**inputs, use_cache=False).past_key_values is None


def test_forward_of_kivi_makes_its_own_cache(folder, inputs):
    model = kivi(folder)
    ids = inputs["input_ids"]
    first = model(ids[:, :150])
    assert first.past_key_values.format == KIVI_TEXT and first.past_key_values.lengths == [150]
    second = model(ids[:, 150:], None, None, first.past_key_values)
    assert second.past_key_values is first.past_key_values
    plain = KVQCache(model.config, KIVI_TEXT, prefill="raw")
    assert torch.equal(model(ids[:, :150], past_key_values=plain).logits, first.logits)
    assert torch.equal(model(ids[:, 150:], past_key_values=plain).logits, second.logits)
    positional = model(ids[:, :150], None, None, None)
    assert torch.equal(positional.logits, first.logits) and positional.past_key_values.format == KIVI_TEXT


def test_options_of_kivi_are_read_when_a_cache_is_made(folder, inputs):
    model = kivi(folder)
    model.config.k_bits = 4
    output = generate(model, inputs, None, return_dict_in_generate=True)
    check_stored(output.past_key_values, "k4c32-v4t32/w64,sliding")


def test_sixteen_bits_are_the_baseline_of_kivi(folder, inputs):
    model = kivi(folder, k_bits=16, v_bits=16)
    output = generate(model, inputs, None, return_dict_in_generate=True)
    assert type(output.past_key_values) is DynamicCache
    assert torch.equal(output.sequences, generate(model, inputs, DynamicCache(config=model.config)))
    assert type(model(**inputs).past_key_values) is DynamicCache


def test_options_of_kivi_survive_saving(folder, inputs, tmp_path):
    model = kivi(folder)
    model.save_pretrained(tmp_path)
    again = LlamaForCausalLM_KIVI.from_pretrained(tmp_path)
    assert cache_text(again.config) == KIVI_TEXT
    assert torch.equal(generate(again, inputs, None), generate(model, inputs, None))


@pytest.mark.parametrize("sliding_window", [None, 100])
def test_mistral_of_kivi(tmp_path, inputs, sliding_window):
    from models.mistral_kivi import MistralForCausalLM_KIVI as Foreign

    assert Foreign is MistralForCausalLM_KIVI
    model = kivi(saved_models.save_mistral(tmp_path, sliding_window), Foreign)
    output = generate(model, inputs, None, return_dict_in_generate=True)
    assert output.past_key_values.format == KIVI_TEXT
    plain = KVQCache(model.config, KIVI_TEXT, prefill="raw")
    assert torch.equal(output.sequences, generate(model, inputs, plain))


# -- foreign names, documents -----------------------------------------------------------------------------------------


def python(program, cwd):
    """Runs a program in a folder; kvq is found there too where its own path is relative."""
    env = os.environ | {"PYTHONPATH": str(Path(kvq.__file__).absolute().parents[1])}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=cwd, env=env)


def test_the_shim_keeps_clear_of_real_packages(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "weights.bin").write_bytes(b"")
    program = (
        "import kvq.compat.shim, models.llama_kivi, flexible_quant.flexible_quantized_cache as f\n"
        "import kvq.compat.models.llama_kivi as ours, kvq.compat.flexible_quant.flexible_quantized_cache as g\n"
        "assert models.llama_kivi is ours and f is g\n"
        "import kvq.compat; kvq.compat.install()\n"
    )
    assert python(program, tmp_path).returncode == 0, "a mere folder of that name is in nobody's way"
    (tmp_path / "models" / "__init__.py").write_text("")
    refused = python("import kvq.compat.shim", tmp_path)
    said = refused.stderr.strip().splitlines()[-1]
    assert said.startswith("kvq.errors.FailedPrecondition: a package 'models' is already there (")
    assert said.endswith(
        "import from kvq.compat.models in its place, and kvq.compat.install('flexible_quant') for the other name"
    )
    program = "import kvq.compat; kvq.compat.install('flexible_quant')\nimport flexible_quant.flexible_quantized_cache"
    assert python(program, tmp_path).returncode == 0
    nearest = python("import kvq.compat; kvq.compat.install('model')", tmp_path).stderr.strip().splitlines()[-1]
    assert nearest == "kvq.errors.InvalidArgument: the package 'model' does not exist: did you mean models?"


def test_importing_kvq_imports_no_torch(tmp_path):
    program = (
        "import sys, kvq\nassert 'torch' not in sys.modules and 'yaml' not in sys.modules\nkvq.KVQ, kvq.KVQCacheConfig"
    )
    assert python(program, tmp_path).returncode == 0


def examples():
    text = (ROOT / "docs" / "drop-in.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(examples())))
def test_examples_of_the_document_run(folder, model, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids = torch.randint(1, 256, (1, 150), generator=torch.Generator().manual_seed(5))
    names = {
        "MODEL": folder,
        "model": model,
        "tokenizer": AutoTokenizer.from_pretrained(folder),
        "inputs": {"input_ids": ids},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(examples()[number], **names)


@pytest.mark.model
def test_snippets_on_a_real_model():
    """SmolLM2 at 8 bits says through each face what it says in full precision."""
    from kvq import evaluate

    subject = evaluate.smollm2()
    inputs = {"input_ids": subject.chat("What is the capital of France?")}
    exact = generate(subject.model, inputs, DynamicCache(config=subject.model.config))
    tuned = FlexibleQuantizedCacheConfig(nbits=8, asym=True, residual_length=0, q_group_size=-1)
    quanto = FlexibleQuantizedCacheConfig(nbits=8, axis_key=-1, q_group_size=32, residual_length=32)
    for cache in (
        KVQ({"nbits_k": 8, "nbits_v": 8, "residual_length": 32}),
        FlexibleVanillaQuantizedCache(cache_config=tuned),
        FlexibleQuantoQuantizedCache(cache_config=quanto),
    ):
        assert torch.equal(generate(subject.model, inputs, cache), exact)
        assert "Paris" in subject.decode(exact[0])
