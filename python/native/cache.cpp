// SPDX-License-Identifier: Apache-2.0
//
// kvq._native.Cache and Step: a paged cache that owns its memory, and the steps that write and read it. Growing and
// the scratch of a step are handled here, so that a caller sees no memory at all. Sequences are in sequence.cpp.
#include "python/native/native.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace kvq::python {

class Step {
public:
  Step(std::shared_ptr<CacheState> cache, kvq_step *handle) : cache(std::move(cache)), handle(handle) {}
  Step(Step &&other) noexcept : cache(std::move(other.cache)), handle(std::exchange(other.handle, nullptr)) {}
  ~Step() { abort(); }
  void abort() {
    if (!handle)
      return;
    nb::gil_scoped_release release;
    std::scoped_lock lock(cache->mutex);
    kvq_abort_step(std::exchange(handle, nullptr));
  }
  // With the cache's lock held: another thread may have ended the step while this one waited for it.
  kvq_step *open() const {
    if (!handle)
      throw Failure(KVQ_FAILED_PRECONDITION, "this step has ended: open another one with Cache.plan");
    return handle;
  }
  std::shared_ptr<CacheState> cache;
  kvq_step *handle;
};

static void configure(CacheState &state, const Context &context, const std::string &format, int layers, int qHeads,
                      int kvHeads, int dk, int dv, const std::string &dtype, int64_t blocks, int sequences,
                      int pageTokens, int attentionWindow, float scoreCap, const std::optional<std::string> &accuracy,
                      const std::optional<ScoreFunction> &score, const std::optional<std::string> &splitPolicy) {
  state.context = context.state;
  state.format = format;
  kvq_cache_config &config = state.config;
  config.struct_size = sizeof config;
  config.format = state.format.c_str();
  config.layers = layers;
  config.q_heads = qHeads;
  config.kv_heads = kvHeads;
  config.dk = dk;
  config.dv = dv;
  config.dtype = parseDtype(dtype);
  config.page_tokens = pageTokens;
  config.blocks = blocks;
  config.sequences = sequences;
  config.attention_window = attentionWindow;
  config.score_cap = scoreCap;
  config.accuracy = parseAccuracy(accuracy);
  state.score = score;
  if (score) {
    state.scoreView = state.score->view();
    config.score = &state.scoreView;
  }
  state.splitPolicy = splitPolicy;
  if (splitPolicy)
    config.split_policy = state.splitPolicy->c_str();
}

static void create(Cache *self, const Context &context, const std::string &format, int layers, int qHeads, int kvHeads,
                   int dk, int dv, const std::string &dtype, int64_t blocks, int sequences, int pageTokens,
                   int attentionWindow, float scoreCap, const std::optional<std::string> &accuracy,
                   const std::optional<ScoreFunction> &score, const std::optional<std::string> &splitPolicy) {
  auto state = std::make_shared<CacheState>();
  configure(*state, context, format, layers, qHeads, kvHeads, dk, dv, dtype, blocks, sequences, pageTokens,
            attentionWindow, scoreCap, accuracy, score, splitPolicy);
  size_t bytes = 0;
  check(kvq_cache_memory_bytes(&state->config, &bytes));
  {
    nb::gil_scoped_release release;
    state->memory = std::make_shared<Memory>(context.state->handle, bytes);
    std::scoped_lock lock(context.state->mutex);
    check(kvq_cache_create(context.state->handle, &state->config, state->memory->data(), bytes, &state->handle));
  }
  new (self) Cache{std::move(state)};
}

static void prepareFor(const CacheState &state, const std::vector<std::string> &targets, nb::object progress) {
  std::string names;
  for (const std::string &target : targets)
    names += target + ",";
  KernelVisitor visitor(std::move(progress));
  {
    nb::gil_scoped_release release;
    std::scoped_lock lock(state.context->mutex);
    check(kvq_prepare_targets(state.context->handle, &state.config, names.c_str(), KernelVisitor::visit, &visitor));
  }
  visitor.rethrow();
}

static void querySupport(const Context &context, const std::string &format, int layers, int qHeads, int kvHeads, int dk,
                         int dv, const std::string &dtype, int64_t blocks, int sequences, int pageTokens,
                         int attentionWindow, float scoreCap, const std::optional<std::string> &accuracy,
                         const std::optional<ScoreFunction> &score, const std::optional<std::string> &splitPolicy) {
  CacheState state;
  configure(state, context, format, layers, qHeads, kvHeads, dk, dv, dtype, blocks, sequences, pageTokens,
            attentionWindow, scoreCap, accuracy, score, splitPolicy);
  check(kvq_query_support(context.state->handle, &state.config));
}

static void prepareTargets(const Context &context, const std::string &format, const std::vector<std::string> &targets,
                           int layers, int qHeads, int kvHeads, int dk, int dv, const std::string &dtype,
                           int64_t blocks, int sequences, int pageTokens, int attentionWindow, float scoreCap,
                           const std::optional<std::string> &accuracy, const std::optional<ScoreFunction> &score,
                           const std::optional<std::string> &splitPolicy, nb::object progress) {
  CacheState state;
  configure(state, context, format, layers, qHeads, kvHeads, dk, dv, dtype, blocks, sequences, pageTokens,
            attentionWindow, scoreCap, accuracy, score, splitPolicy);
  prepareFor(state, targets, std::move(progress));
}

static void grow(Cache &self, int64_t blocks, int sequences) {
  CacheState &state = *self.state;
  kvq_cache_config larger = state.config;
  larger.blocks = blocks;
  larger.sequences = sequences;
  size_t bytes = 0;
  check(kvq_cache_memory_bytes(&larger, &bytes));
  nb::gil_scoped_release release;
  auto memory = std::make_shared<Memory>(state.context->handle, bytes);
  std::scoped_lock lock(state.mutex);
  check(kvq_cache_grow(state.handle, blocks, sequences, memory->data(), bytes));
  state.memory = std::move(memory);
  state.config = larger;
}

static nb::dict report(Cache &self) {
  kvq_cache_report r = {};
  r.struct_size = sizeof r;
  {
    nb::gil_scoped_release release;
    std::scoped_lock lock(self.state->mutex);
    check(kvq_report(self.state->handle, &r));
  }
  nb::dict result;
  result["tokens"] = r.tokens;
  result["sequences"] = r.sequences;
  result["blocks_used"] = r.blocks_used;
  result["blocks_capacity"] = r.blocks_capacity;
  result["page_bytes_used"] = r.page_bytes_used;
  result["tail_bytes_used"] = r.tail_bytes_used;
  result["bytes_used"] = r.bytes_used;
  result["bytes_reserved"] = r.bytes_reserved;
  result["bytes_touched"] = r.bytes_touched;
  result["bits_per_element"] = r.bits_per_element;
  return result;
}

static nb::dict configOf(const Cache &self) {
  const kvq_cache_config &config = self.state->config;
  nb::dict result;
  result["format"] = self.state->format;
  result["layers"] = config.layers;
  result["q_heads"] = config.q_heads;
  result["kv_heads"] = config.kv_heads;
  result["dk"] = config.dk;
  result["dv"] = config.dv;
  result["dtype"] = dtypeName(config.dtype);
  result["page_tokens"] = config.page_tokens;
  result["blocks"] = config.blocks;
  result["sequences"] = config.sequences;
  result["attention_window"] = config.attention_window;
  result["score_cap"] = config.score_cap;
  result["accuracy"] = kvq_accuracy_name(config.accuracy);
  result["score"] = self.state->score ? nb::cast(*self.state->score) : nb::none();
  result["split_policy"] = self.state->splitPolicy ? nb::cast(*self.state->splitPolicy) : nb::none();
  return result;
}

static void read(Cache &self, int sequence, int layer, const Output &k, const Output &v, int64_t first) {
  kvq_tensor kView = tensorOf(k, "k"), vView = tensorOf(v, "v");
  self.call([&](kvq_cache *cache) { return kvq_read_from(cache, sequence, layer, first, &kView, &vView); });
}

static void setSinks(Cache &self, int layer, const std::vector<float> &logits) {
  self.call([&](kvq_cache *cache) {
    return kvq_cache_set_sinks(cache, layer, logits.data(), static_cast<int32_t>(logits.size()));
  });
}

static void prepare(Cache &self, nb::object progress, const std::optional<std::vector<std::string>> &targets) {
  if (targets)
    return prepareFor(*self.state, *targets, std::move(progress));
  KernelVisitor visitor(std::move(progress));
  {
    nb::gil_scoped_release release;
    std::scoped_lock lock(self.state->mutex);
    check(kvq_cache_prepare(self.state->handle, KernelVisitor::visit, &visitor));
  }
  visitor.rethrow();
}

static void refreshKernels(Cache &self) { self.call(kvq_cache_refresh_kernels); }

// The desc of a plan; it points into the vectors.
static kvq_plan_desc makeDesc(const std::vector<int32_t> &sequences, const std::vector<int32_t> &newTokens,
                              const std::optional<std::vector<int32_t>> &firstTokens, bool pastOnly) {
  if (newTokens.size() != sequences.size() || (firstTokens && firstTokens->size() != sequences.size()))
    throw Failure(KVQ_INVALID_ARGUMENT, "new_tokens and first_tokens must have one entry for each of the " +
                                            std::to_string(sequences.size()) + " sequences");
  kvq_plan_desc desc = {};
  desc.struct_size = sizeof desc;
  desc.count = static_cast<int32_t>(sequences.size());
  desc.sequences = sequences.data();
  desc.new_tokens = newTokens.data();
  desc.first_tokens = firstTokens ? firstTokens->data() : nullptr;
  desc.past_only = pastOnly;
  return desc;
}

static Step plan(Cache &self, const std::vector<int32_t> &sequences, const std::vector<int32_t> &newTokens,
                 const std::optional<std::vector<int32_t>> &firstTokens, bool pastOnly) {
  const kvq_plan_desc desc = makeDesc(sequences, newTokens, firstTokens, pastOnly);
  CacheState &state = *self.state;
  nb::gil_scoped_release release;
  std::scoped_lock lock(state.mutex);
  kvq_step *handle = nullptr;
  check(kvq_plan(state.handle, &desc, &handle));
  size_t bytes = 0;
  try {
    check(kvq_workspace_bytes(handle, &bytes));
    if (bytes > state.workspace.bytes()) // twice as much: it follows the context for a while
      state.workspace = Memory(state.context->handle, std::max(bytes, 2 * state.workspace.bytes()));
  } catch (...) {
    kvq_abort_step(handle);
    throw;
  }
  return Step(self.state, handle);
}

static int64_t planBlocks(Cache &self, const std::vector<int32_t> &sequences, const std::vector<int32_t> &newTokens) {
  const kvq_plan_desc desc = makeDesc(sequences, newTokens, std::nullopt, false);
  int64_t blocks = 0;
  self.call([&](kvq_cache *cache) { return kvq_plan_blocks(cache, &desc, &blocks); });
  return blocks;
}

static void append(Step &self, int layer, const Input &k, const Input &v) {
  kvq_tensor kView = tensorOf(k, "k"), vView = tensorOf(v, "v");
  nb::gil_scoped_release release;
  std::scoped_lock lock(self.cache->mutex);
  check(kvq_append(self.open(), layer, &kView, &vView));
}

static void attend(Step &self, int layer, const Input &q, float scale, const Output &out,
                   const std::optional<Output> &lse, const std::optional<Stream> &stream) {
  kvq_tensor qView = tensorOf(q, "q"), outView = tensorOf(out, "out"), lseView;
  if (lse)
    lseView = tensorOf(*lse, "lse");
  const Memory &scratch = self.cache->workspace;
  nb::gil_scoped_release release;
  std::scoped_lock lock(self.cache->mutex);
  check(kvq_attend(self.open(), layer, &qView, scale, scratch.data(), scratch.bytes(), handleOf(stream), &outView,
                   lse ? &lseView : nullptr));
}

static void forward(Step &self, int layer, const Input &q, const Input &k, const Input &v, float scale,
                    const Output &out, const std::optional<Output> &lse, const std::optional<Stream> &stream) {
  kvq_tensor qView = tensorOf(q, "q"), kView = tensorOf(k, "k"), vView = tensorOf(v, "v");
  kvq_tensor outView = tensorOf(out, "out"), lseView;
  if (lse)
    lseView = tensorOf(*lse, "lse");
  const Memory &scratch = self.cache->workspace;
  nb::gil_scoped_release release;
  std::scoped_lock lock(self.cache->mutex);
  check(kvq_forward(self.open(), layer, &qView, &kView, &vView, scale, scratch.data(), scratch.bytes(),
                    handleOf(stream), &outView, lse ? &lseView : nullptr));
}

static void commit(Step &self) {
  nb::gil_scoped_release release;
  std::scoped_lock lock(self.cache->mutex);
  check(kvq_commit_step(self.open()));
  self.handle = nullptr;
}

// The end of a with block. A step that cannot be committed must not stay open behind the exception's traceback.
static void leave(Step &self, bool raised) {
  try {
    if (!raised && self.handle)
      commit(self);
  } catch (const Failure &) {
    self.abort();
    throw;
  }
  if (raised)
    self.abort();
}

// The packed bytes of a layer without a copy, by runs (format-spec page_c4); they live as long as the array, though the
// cache moves on to other memory when it grows.
// On a device with memory of its own they are an array there, for kernels and not for NumPy.
static nb::object pages(Cache &self, int layer) {
  void *data = nullptr;
  int64_t blockStride = 0, headStride = 0;
  check(kvq_layer_page_strides(self.state->handle, layer, &data, &blockStride, &headStride));
  const kvq_cache_config &config = self.state->config;
  const int64_t run = headStride / blockStride, runs = (config.blocks + run - 1) / run;
  auto *memory = new std::shared_ptr<Memory>(self.state->memory);
  nb::capsule owner(memory, [](void *p) noexcept { delete static_cast<std::shared_ptr<Memory> *>(p); });
  size_t shape[4] = {static_cast<size_t>(runs), static_cast<size_t>(config.kv_heads), static_cast<size_t>(run),
                     static_cast<size_t>(blockStride)};
  const int device = deviceTypeOf(self.state->context->handle);
  if (device == nb::device::cpu::value)
    return nb::cast(nb::ndarray<nb::numpy, uint8_t>(data, 4, shape, owner));
  return nb::cast(nb::ndarray<nb::array_api, uint8_t>(data, 4, shape, owner, nullptr, nb::dtype<uint8_t>(), device));
}

static void bindStep(nb::module_ &m) {
  using namespace nb::literals;
  nb::class_<Step>(m, "Step",
                   "One model step: append and attend in every layer, then commit. As a context manager it "
                   "commits, or aborts when the block raises or the commit fails.")
      .def("append", append, "layer"_a, "k"_a.noconvert(), "v"_a.noconvert(),
           "Appends K and V [count, kv_heads, T, d] of all new tokens of one layer.")
      .def(
          "attend", attend, "layer"_a, "q"_a.noconvert(), "scale"_a, "out"_a.noconvert(),
          "lse"_a.noconvert() = nb::none(), "stream"_a = nb::none(),
          "Attends [count, q_heads, T, d] of at most 32 new tokens, after append. On a device with streams out and lse "
          "are there when the stream, or without one the context, was synchronized.")
      .def("forward", forward, "layer"_a, "q"_a.noconvert(), "k"_a.noconvert(), "v"_a.noconvert(), "scale"_a,
           "out"_a.noconvert(), "lse"_a.noconvert() = nb::none(), "stream"_a = nb::none(),
           "Append and attend, for any number of new tokens.")
      .def("commit", commit, "Ends the step and advances all its sequences.")
      .def("abort", &Step::abort, "Ends the step without effect; nothing happens if it has ended.")
      .def_prop_ro("is_open", [](const Step &self) { return self.handle != nullptr; })
      .def("__enter__", [](nb::object self) { return self; })
      .def(
          "__exit__", [](Step &self, nb::object type, nb::object, nb::object) { leave(self, !type.is_none()); },
          "type"_a.none(), "value"_a.none(), "traceback"_a.none());
}

void bindCache(nb::module_ &m) {
  using namespace nb::literals;
  m.def("query_support", querySupport, "context"_a, "format"_a, nb::kw_only(), "layers"_a, "q_heads"_a, "kv_heads"_a,
        "dk"_a, "dv"_a, "dtype"_a = "float32", "blocks"_a = 1, "sequences"_a = 1, "page_tokens"_a = 0,
        "attention_window"_a = 0, "score_cap"_a = 0.0f, "accuracy"_a = nb::none(), "score"_a = nb::none(),
        "split_policy"_a = nb::none(), "Raises the reason why such a cache cannot run here; never compiles.");
  m.def("prepare_targets", prepareTargets, "context"_a, "format"_a, "targets"_a, nb::kw_only(), "layers"_a = 1,
        "q_heads"_a, "kv_heads"_a, "dk"_a, "dv"_a, "dtype"_a = "float32", "blocks"_a = 1, "sequences"_a = 1,
        "page_tokens"_a = 0, "attention_window"_a = 0, "score_cap"_a = 0.0f, "accuracy"_a = nb::none(),
        "score"_a = nb::none(), "split_policy"_a = nb::none(), "progress"_a = nb::none(),
        "Compiles what such a cache needs on other machines' targets into the context's kernel store.");
  nb::class_<Cache> cache(m, "Cache", "A paged quantized cache that owns its memory.");
  cache
      .def("__init__", create, "context"_a, "format"_a, nb::kw_only(), "layers"_a, "q_heads"_a, "kv_heads"_a, "dk"_a,
           "dv"_a, "dtype"_a = "float32", "blocks"_a, "sequences"_a = 1, "page_tokens"_a = 0, "attention_window"_a = 0,
           "score_cap"_a = 0.0f, "accuracy"_a = nb::none(), "score"_a = nb::none(), "split_policy"_a = nb::none())
      .def("grow", grow, "blocks"_a, "sequences"_a, "Moves the cache into larger memory. Not while a step is open.")
      .def("report", report, "Tokens, blocks and bytes, in use and reserved.")
      .def("read", read, "sequence"_a, "layer"_a, "k"_a.noconvert(), "v"_a.noconvert(), "first"_a = 0,
           "Writes the tokens of a sequence from `first` on, in one layer, as dense rows into k and v.")
      .def("set_sinks", setSinks, "layer"_a, "logits"_a, "Sets the sink logits of a layer, one per query head.")
      .def("refresh_kernels", refreshKernels,
           "Opens the kernels again, between steps, so that they have the schedules that are chosen now.")
      .def("prepare", prepare, "progress"_a.none() = nb::none(), "targets"_a = nb::none(),
           "Compiles or loads all kernels; progress(dict) is called for each. With targets, such as [\"nvptx:sm_90\"]: "
           "those that such a cache needs on these, into the context's store, on a machine without them.")
      .def("plan", plan, "sequences"_a, "new_tokens"_a, "first_tokens"_a = nb::none(), "past_only"_a = false,
           "Opens a step. new_tokens: tokens that each sequence appends; first_tokens: where they begin along T. "
           "past_only: attention sees the tokens before the step alone and comes before append, for raw prefill.")
      .def("plan_blocks", planBlocks, "sequences"_a, "new_tokens"_a, "Blocks that such a step takes from the pool.")
      .def(
          "pages", pages, "layer"_a,
          "Packed bytes of a layer as uint8 [runs, kv_heads, blocks of a run, page bytes], in place, for user kernels: "
          "a page begins at strides[2] times the block's number and strides[1] times its head. Valid until grow.")
      .def_prop_ro("config", configOf,
                   "What the cache was made with, its accuracy class by name, and its present blocks and sequences.")
      .def_prop_ro(
          "split_policy", [](const Cache &self) { return std::string(kvq_cache_split_policy(self.state->handle)); },
          "How it splits keys over programs: as it was given, or chosen when it was made, or the default.")
      .def_prop_ro("blocks", [](const Cache &self) { return self.state->config.blocks; })
      .def_prop_ro("sequences", [](const Cache &self) { return self.state->config.sequences; });
  bindSequences(cache);
  bindStep(m);
}

} // namespace kvq::python
