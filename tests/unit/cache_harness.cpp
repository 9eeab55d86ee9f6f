// SPDX-License-Identifier: Apache-2.0
//
// The harness of the cache tests.
#include "tests/unit/cache_harness.h"

namespace kvq_test {

Shown::Shown(kvq_context *context, const Memory &host, bool onDevice) : host_(host) {
  if (!onDevice)
    return;
  KVQ_EXPECT_OK(kvq_buffer_create(context, host.total(), &buffer_));
  KVQ_EXPECT_OK(kvq_buffer_upload(buffer_, 0, host.block(), host.total(), nullptr));
}

Shown::~Shown() { kvq_buffer_destroy(buffer_); }

uint8_t *Shown::data() const {
  return buffer_ ? reinterpret_cast<uint8_t *>(kvq_buffer_address(buffer_)) + Memory::kGuard : host_.data();
}

kvq_tensor Shown::of(kvq_tensor tensor) const {
  tensor.data = data();
  tensor.device = buffer_ ? KVQ_CUDA : KVQ_CPU;
  return tensor;
}

void Shown::clear(void *stream) const { KVQ_EXPECT_OK(kvq_buffer_fill(buffer_, 0, 0, host_.total(), stream)); }

void Shown::fetch() {
  if (buffer_ && !isLost_)
    KVQ_EXPECT_OK(kvq_buffer_download(buffer_, 0, host_.block(), host_.total(), nullptr));
}

Harness::Harness(const CacheSetup &setup)
    : setup(setup), sinks(size_t(setup.layers) * setup.qHeads, -std::numeric_limits<float>::infinity()) {
  kvq_context_options options{};
  options.struct_size = sizeof(options);
  const char *named = std::getenv("KVQ_TEST_DEVICE");
  const std::string device = !setup.device.empty() ? setup.device : named ? named : "ref";
  onDevice = device != "ref" && device != "cpu";
  options.device = device.c_str();
  options.threads = setup.threads;
  options.parallel_for = setup.parallel;
  Outcome created(kvq_context_create(&options, &context));
  EXPECT_EQ(created.code, KVQ_OK) << created.message;
  const kvq_cache_config wanted = config();
  size_t bytes = 0;
  KVQ_EXPECT_OK(kvq_cache_memory_bytes(&wanted, &bytes));
  memory = std::make_unique<Memory>(bytes);
  shown = std::make_unique<Shown>(context, *memory, onDevice);
  KVQ_EXPECT_OK(kvq_cache_create(context, &wanted, shown->data(), memory->size(), &cache));
  for (int layer = 0; setup.sinks && layer < setup.layers; ++layer) {
    float *logits = sinks.data() + layer * setup.qHeads;
    for (int head = 0; head < setup.qHeads; ++head)
      logits[head] = std::normal_distribution<float>(2, 2)(random_);
    KVQ_EXPECT_OK(kvq_cache_set_sinks(cache, layer, logits, setup.qHeads));
  }
}

Harness::~Harness() {
  kvq_cache_destroy(cache);
  shown->fetch();
  shown.reset();
  kvq_context_destroy(context);
  EXPECT_TRUE(memory->guardsIntact());
}

kvq_cache_config Harness::config() const {
  kvq_cache_config config{};
  config.struct_size = sizeof(config);
  config.format = setup.text.c_str();
  config.layers = setup.layers;
  config.q_heads = setup.qHeads;
  config.kv_heads = setup.kvHeads;
  config.dk = setup.dk;
  config.dv = setup.dv;
  config.dtype = setup.dtype;
  config.page_tokens = setup.pageTokens;
  config.blocks = setup.blocks;
  config.sequences = setup.sequences;
  config.attention_window = setup.attentionWindow;
  config.score_cap = setup.scoreCap;
  return config;
}

float Harness::rounded(float value) const {
  return setup.dtype == KVQ_F32 ? value : setup.dtype == KVQ_F16 ? roundF16(value) : roundBf16(value);
}

std::vector<ModelHead> &Harness::modelOf(int32_t sequence) {
  model.resize(std::max<size_t>(model.size(), sequence + 1));
  return model[sequence];
}

int32_t Harness::add() {
  int32_t id = -1;
  KVQ_EXPECT_OK(kvq_sequence_add(cache, &id));
  modelOf(id).assign(setup.layers * setup.kvHeads, {});
  for (ModelHead &head : model[id])
    head.k.channels = setup.dk, head.v.channels = setup.dv;
  return id;
}

void Harness::remove(int32_t sequence) {
  KVQ_EXPECT_OK(kvq_sequence_remove(cache, sequence));
  model[sequence].clear();
}

int32_t Harness::fork(int32_t sequence) {
  int32_t id = -1;
  KVQ_EXPECT_OK(kvq_sequence_fork(cache, sequence, &id));
  modelOf(id) = std::vector<ModelHead>(model[sequence]);
  return id;
}

void Harness::crop(int32_t sequence, int64_t tokens, int64_t thawed) {
  const int64_t begin = state(sequence).first_block * pageTokens();
  int64_t reported = -1;
  KVQ_ASSERT_OK(kvq_sequence_crop(cache, sequence, tokens, &reported));
  EXPECT_EQ(reported, thawed);
  for (ModelHead &head : model[sequence])
    EXPECT_EQ(head.crop(setup.model, tokens, begin, [this](float value) { return rounded(value); }), thawed);
}

std::vector<uint8_t> Harness::snapshot(int32_t sequence) {
  size_t bytes = 0;
  KVQ_EXPECT_OK(kvq_sequence_snapshot_bytes(cache, sequence, &bytes));
  Memory out(bytes);
  KVQ_EXPECT_OK(kvq_sequence_snapshot(cache, sequence, out.data(), bytes));
  EXPECT_TRUE(out.guardsIntact());
  return {out.data(), out.data() + bytes};
}

int32_t Harness::restore(const std::vector<uint8_t> &data, int32_t like, const Harness *of) {
  int32_t id = -1;
  KVQ_EXPECT_OK(kvq_sequence_restore(cache, data.data(), data.size(), &id));
  modelOf(id) = std::vector<ModelHead>((of ? of : this)->model[like]);
  return id;
}

void Harness::grow(int blocks, int sequences) {
  setup.blocks = blocks, setup.sequences = sequences;
  const kvq_cache_config larger = config();
  size_t bytes = 0;
  KVQ_ASSERT_OK(kvq_cache_memory_bytes(&larger, &bytes));
  moveTo(std::make_unique<Memory>(bytes));
}

void Harness::moveTo(std::unique_ptr<Memory> grown) {
  auto grownShown = std::make_unique<Shown>(context, *grown, onDevice);
  KVQ_ASSERT_OK(kvq_cache_grow(cache, setup.blocks, setup.sequences, grownShown->data(), grown->size()));
  shown->fetch();
  EXPECT_TRUE(memory->guardsIntact());
  shown = std::move(grownShown); // the old memory is gone
  memory = std::move(grown);
}

static kvq_plan_desc toDesc(const StepData &data) {
  kvq_plan_desc desc{};
  desc.struct_size = sizeof(desc);
  desc.count = static_cast<int32_t>(data.sequences.size());
  desc.sequences = data.sequences.data();
  desc.new_tokens = data.newTokens.data();
  desc.first_tokens = data.firstTokens.empty() ? nullptr : data.firstTokens.data();
  desc.past_only = data.pastOnly;
  return desc;
}

kvq_error *Harness::plan(const StepData &data, kvq_step **step) {
  const kvq_plan_desc desc = toDesc(data);
  return kvq_plan(cache, &desc, step);
}

int64_t Harness::planBlocks(const StepData &data) {
  const kvq_plan_desc desc = toDesc(data);
  int64_t blocks = -1;
  KVQ_EXPECT_OK(kvq_plan_blocks(cache, &desc, &blocks));
  return blocks;
}

Harness::LayerData Harness::random(const StepData &data) {
  const int batch = static_cast<int>(data.sequences.size()), tokens = data.tokens;
  LayerData result{Rows(batch, setup.qHeads, tokens, setup.dk, setup.dtype),
                   Rows(batch, setup.kvHeads, tokens, setup.dk, setup.dtype),
                   Rows(batch, setup.kvHeads, tokens, setup.dv, setup.dtype),
                   Rows(batch, setup.qHeads, tokens, setup.dv, setup.dtype),
                   Rows(batch, setup.qHeads, tokens, 1, KVQ_F32)};
  std::normal_distribution<float> normal;
  // Padding stays NaN: nothing may read it.
  for (Rows *rows : {&result.q, &result.k, &result.v})
    for (int b = 0; b < batch; ++b)
      for (int h = 0; h < rows->heads; ++h)
        for (int t = first(data, b); t < first(data, b) + data.newTokens[b]; ++t)
          for (int c = 0; c < rows->channels; ++c)
            rows->set(rows->index(b, h, t) + c, normal(random_) + (rows == &result.k && c % 5 == 0 ? 3.0f : 0.0f));
  return result;
}

// kvq_forward, or without k and v kvq_attend.
kvq_error *Harness::withWorkspace(kvq_step *step, LayerData &data, const kvq_tensor *k, const kvq_tensor *v,
                                  int layer) {
  size_t bytes = 0;
  KVQ_EXPECT_OK(kvq_workspace_bytes(step, &bytes));
  Memory workspace(bytes);
  Shown scratch(context, workspace, onDevice), qShown(context, data.q.memory, onDevice),
      outShown(context, data.out.memory, onDevice), lseShown(context, data.lse.memory, onDevice);
  kvq_tensor lse = lseShown.of(data.lse.tensor());
  lse.ndim = 3;
  const kvq_tensor q = qShown.of(data.q.tensor()), out = outShown.of(data.out.tensor());
  kvq_error *error = k ? kvq_forward(step, layer, &q, k, v, 0.25f, scratch.data(), bytes, nullptr, &out, &lse)
                       : kvq_attend(step, layer, &q, 0.25f, scratch.data(), bytes, nullptr, &out, &lse);
  for (Shown *written : {&scratch, &outShown, &lseShown})
    written->fetch();
  for (const Memory *written : {&workspace, &data.out.memory, &data.lse.memory})
    EXPECT_TRUE(written->guardsIntact());
  return error;
}

kvq_error *Harness::forward(kvq_step *step, int layer, LayerData &data) {
  const Shown kShown(context, data.k.memory, onDevice), vShown(context, data.v.memory, onDevice);
  const kvq_tensor k = kShown.of(data.k.tensor()), v = vShown.of(data.v.tensor());
  return withWorkspace(step, data, &k, &v, layer);
}

kvq_error *Harness::append(kvq_step *step, int layer, const LayerData &data) {
  const Shown kShown(context, data.k.memory, onDevice), vShown(context, data.v.memory, onDevice);
  const kvq_tensor k = kShown.of(data.k.tensor()), v = vShown.of(data.v.tensor());
  return kvq_append(step, layer, &k, &v);
}

kvq_error *Harness::attend(kvq_step *step, int layer, LayerData &data) {
  return withWorkspace(step, data, nullptr, nullptr, layer);
}

void Harness::record(const StepData &data, int layer, const LayerData &layerData) {
  for (size_t b = 0; b < data.sequences.size(); ++b)
    for (int h = 0; h < setup.kvHeads; ++h) {
      ModelHead &head = model[data.sequences[b]][layer * setup.kvHeads + h];
      for (int t = first(data, b); t < first(data, b) + data.newTokens[b]; ++t) {
        for (int c = 0; c < setup.dk; ++c)
          head.k.rows.push_back(layerData.k.get(layerData.k.index(b, h, t) + c));
        for (int c = 0; c < setup.dv; ++c)
          head.v.rows.push_back(layerData.v.get(layerData.v.index(b, h, t) + c));
      }
      head.commit(setup.model, data.newTokens[b]);
    }
}

// After record(). The tolerance is the accuracy class (attention_c4) and, for 16 bits, half a unit of the last of the
// 8 or 11 of them that bf16 or f16 gives a value.
void Harness::check(const StepData &data, int layer, const LayerData &layerData) {
  const double tolerance = 1e-3 + (setup.dtype == KVQ_F32 ? 0 : setup.dtype == KVQ_F16 ? 5e-4 : 4e-3);
  const int ratio = setup.qHeads / setup.kvHeads;
  const ModelAttention attention = {0.25, setup.attentionWindow, setup.scoreCap};
  std::vector<double> expected;
  for (size_t b = 0; b < data.sequences.size(); ++b)
    for (int h = 0; h < setup.qHeads; ++h) {
      const ModelHead &head = model[data.sequences[b]][layer * setup.kvHeads + h / ratio];
      for (int i = 0; i < data.tokens; ++i) {
        const int64_t at = layerData.out.index(b, h, i);
        const int token = i - first(data, b);
        if (token < 0 || token >= data.newTokens[b]) {
          ASSERT_TRUE(std::isnan(layerData.out.get(at))) << "padding was written";
          continue;
        }
        std::vector<float> q(setup.dk);
        for (int c = 0; c < setup.dk; ++c)
          q[c] = layerData.q.get(layerData.q.index(b, h, i) + c);
        const int64_t position = head.stepBegin + token;
        const double lse = modelAttend(setup.model, attention, head, position, data.pastOnly, q.data(),
                                       sinks[layer * setup.qHeads + h], expected);
        const float given = layerData.lse.get(layerData.lse.index(b, h, i));
        const auto where = [&] {
          return "sequence " + std::to_string(data.sequences[b]) + " head " + std::to_string(h) + " position " +
                 std::to_string(position);
        };
        if (std::isinf(lse)) // no key
          ASSERT_EQ(given, lse) << where();
        else
          ASSERT_NEAR(given, lse, 1e-3) << where();
        for (int c = 0; c < setup.dv; ++c)
          ASSERT_NEAR(layerData.out.get(at + c), expected[c], tolerance * std::max(1.0, std::fabs(expected[c])))
              << where() << " channel " << c;
      }
    }
}

void Harness::step(const StepData &data, bool useForward) {
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(plan(data, &step));
  // Layers may come in any order.
  for (int layer = setup.layers - 1; layer >= 0; --layer) {
    LayerData values = random(data);
    if (useForward) {
      KVQ_ASSERT_OK(forward(step, layer, values));
    } else if (data.pastOnly) {
      KVQ_ASSERT_OK(attend(step, layer, values));
      KVQ_ASSERT_OK(append(step, layer, values));
    } else {
      KVQ_ASSERT_OK(append(step, layer, values));
      KVQ_ASSERT_OK(attend(step, layer, values));
    }
    record(data, layer, values);
    check(data, layer, values);
  }
  KVQ_ASSERT_OK(kvq_commit_step(step));
}

std::vector<float> Harness::answers(const StepData &data, unsigned seed) {
  random_.seed(seed);
  std::vector<float> all;
  kvq_step *step = nullptr;
  KVQ_EXPECT_OK(plan(data, &step));
  for (int layer = 0; layer < setup.layers && step; ++layer) {
    LayerData values = random(data);
    KVQ_EXPECT_OK(forward(step, layer, values));
    record(data, layer, values);
    check(data, layer, values);
    for (int64_t i = 0; i < int64_t(values.lse.batch) * setup.qHeads * data.tokens; ++i)
      all.push_back(values.lse.get(i));
    for (size_t b = 0; b < data.sequences.size(); ++b)
      for (int h = 0; h < setup.qHeads; ++h)
        for (int t = first(data, b); t < first(data, b) + data.newTokens[b]; ++t)
          for (int c = 0; c < setup.dv; ++c)
            all.push_back(values.out.get(values.out.index(b, h, t) + c));
  }
  KVQ_EXPECT_OK(kvq_commit_step(step));
  return all;
}

void Harness::abort(const StepData &data) {
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(plan(data, &step));
  LayerData values = random(data);
  KVQ_EXPECT_OK(forward(step, setup.layers - 1, values));
  kvq_abort_step(step);
}

int64_t Harness::length(int32_t sequence) {
  int64_t tokens = -1;
  KVQ_EXPECT_OK(kvq_sequence_length(cache, sequence, &tokens));
  return tokens;
}

int Harness::pageTokens() const {
  return setup.pageTokens > 0 ? setup.pageTokens : static_cast<int>(std::max<int64_t>(64, setup.model.commitGroup()));
}

int64_t Harness::firstReadable(int32_t sequence) {
  const int64_t page = state(sequence).first_block;
  return page > 0 ? page * pageTokens() + setup.model.keep : 0;
}

kvq_sequence_state Harness::state(int32_t sequence) {
  kvq_sequence_state state{};
  state.struct_size = sizeof(state);
  KVQ_EXPECT_OK(kvq_sequence_get_state(cache, sequence, &state));
  return state;
}

std::vector<int32_t> Harness::blocks(int32_t sequence) {
  std::vector<int32_t> blocks(state(sequence).blocks);
  size_t count = 0;
  KVQ_EXPECT_OK(kvq_sequence_blocks(cache, sequence, blocks.size(), blocks.data(), &count));
  EXPECT_EQ(count, blocks.size());
  return blocks;
}

const uint8_t *Harness::bytes() const {
  shown->fetch();
  return memory->data();
}

const uint8_t *Harness::page(int layer, int32_t block, int head) const {
  void *pages = nullptr;
  int64_t blockStride = 0, headStride = 0;
  KVQ_EXPECT_OK(kvq_layer_page_strides(cache, layer, &pages, &blockStride, &headStride));
  return bytes() + (static_cast<const uint8_t *>(pages) - address()) + block * blockStride + head * headStride;
}

int64_t Harness::pageBytes() const {
  int64_t bytes = 0;
  KVQ_EXPECT_OK(kvq_format_page_bytes(setup.text.c_str(), pageTokens(), setup.dk, setup.dv, &bytes));
  return bytes;
}

kvq_error *Harness::read(int32_t sequence, int layer, int64_t first, const Rows &k, const Rows &v) {
  Shown kShown(context, k.memory, onDevice), vShown(context, v.memory, onDevice);
  const kvq_tensor kView = kShown.of(k.heads3()), vView = vShown.of(v.heads3());
  kvq_error *error = kvq_read_from(cache, sequence, layer, first, &kView, &vView);
  kShown.fetch();
  vShown.fetch();
  return error;
}

std::vector<float> Harness::readAll(int32_t sequence) {
  std::vector<float> all;
  const int64_t begin = firstReadable(sequence);
  const int tokens = static_cast<int>(length(sequence) - begin);
  for (int layer = 0; layer < setup.layers; ++layer) {
    Rows k(1, setup.kvHeads, tokens, setup.dk, setup.dtype), v(1, setup.kvHeads, tokens, setup.dv, setup.dtype);
    KVQ_EXPECT_OK(read(sequence, layer, begin, k, v));
    for (const Rows *rows : {&k, &v}) {
      EXPECT_TRUE(rows->memory.guardsIntact());
      for (int64_t i = 0; i < int64_t(rows->heads) * tokens * rows->channels; ++i)
        all.push_back(rows->get(i));
    }
  }
  return all;
}

void Harness::checkRead(int32_t sequence) {
  const kvq_sequence_state is = state(sequence);
  const std::vector<float> read = readAll(sequence);
  const int64_t begin = firstReadable(sequence);
  size_t at = 0;
  for (int layer = 0; layer < setup.layers; ++layer)
    for (bool isK : {true, false})
      for (int h = 0; h < setup.kvHeads; ++h) {
        const ModelHead &head = model[sequence][layer * setup.kvHeads + h];
        const ModelRows &side = isK ? head.k : head.v;
        ASSERT_EQ(is.tokens, side.tokens());
        ASSERT_EQ(isK ? is.k_frontier : is.v_frontier, side.frontier) << (isK ? "K" : "V");
        for (int64_t token = begin; token < side.tokens(); ++token)
          for (int c = 0; c < side.channels; ++c, ++at) {
            ASSERT_LT(at, read.size());
            ASSERT_EQ(read[at], rounded(side.value(setup.model, token, side.frontier)[c]))
                << (isK ? "K" : "V") << " of layer " << layer << " head " << h << " token " << token << " channel "
                << c;
          }
      }
  EXPECT_EQ(at, read.size());
}

kvq_cache_report Harness::report() {
  kvq_cache_report report{};
  report.struct_size = sizeof(report);
  KVQ_EXPECT_OK(kvq_report(cache, &report));
  return report;
}

} // namespace kvq_test
