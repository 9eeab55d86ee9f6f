// SPDX-License-Identifier: Apache-2.0
//
// The harness of the cache tests.
#include "tests/unit/cache_harness.h"

namespace kvq_test {

Harness::Harness(const CacheSetup &setup) : setup(setup), model(setup.sequences) {
  kvq_context_options options{};
  options.struct_size = sizeof(options);
  const char *device = std::getenv("KVQ_TEST_DEVICE");
  options.device = device ? device : "ref";
  options.threads = setup.threads;
  options.parallel_for = setup.parallel;
  Outcome created(kvq_context_create(&options, &context));
  EXPECT_EQ(created.code, KVQ_OK) << created.message;
  const kvq_cache_config wanted = config();
  size_t bytes = 0;
  KVQ_EXPECT_OK(kvq_cache_memory_bytes(&wanted, &bytes));
  memory = std::make_unique<Memory>(bytes);
  KVQ_EXPECT_OK(kvq_cache_create(context, &wanted, memory->data(), memory->size(), &cache));
}

Harness::~Harness() {
  kvq_cache_destroy(cache);
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
  return config;
}

int32_t Harness::add() {
  int32_t id = -1;
  KVQ_EXPECT_OK(kvq_sequence_add(cache, &id));
  model.resize(std::max<size_t>(model.size(), id + 1));
  model[id].assign(setup.layers * setup.kvHeads, {});
  for (Head &head : model[id])
    head.k.channels = setup.dk, head.v.channels = setup.dv;
  return id;
}

void Harness::remove(int32_t sequence) {
  KVQ_EXPECT_OK(kvq_sequence_remove(cache, sequence));
  model[sequence].clear();
}

kvq_error *Harness::plan(const StepData &data, kvq_step **step) {
  kvq_plan_desc desc{};
  desc.struct_size = sizeof(desc);
  desc.count = static_cast<int32_t>(data.sequences.size());
  desc.sequences = data.sequences.data();
  desc.new_tokens = data.newTokens.data();
  desc.first_tokens = data.firstTokens.empty() ? nullptr : data.firstTokens.data();
  return kvq_plan(cache, &desc, step);
}

Harness::LayerData Harness::random(const StepData &data) {
  const int batch = static_cast<int>(data.sequences.size()), tokens = data.tokens;
  LayerData result{Rows(batch, setup.qHeads, tokens, setup.dk, setup.dtype),
                   Rows(batch, setup.kvHeads, tokens, setup.dk, setup.dtype),
                   Rows(batch, setup.kvHeads, tokens, setup.dv, setup.dtype),
                   Rows(batch, setup.qHeads, tokens, setup.dv, setup.dtype),
                   std::vector<float>(size_t(batch) * setup.qHeads * tokens, -77.0f)};
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

static kvq_tensor lseTensor(std::vector<float> &lse, int64_t batch, int64_t heads, int64_t tokens) {
  return {lse.data(), KVQ_F32, KVQ_CPU, 3, {batch, heads, tokens, 0}, {heads * tokens, tokens, 1, 0}};
}

kvq_error *Harness::forward(kvq_step *step, int layer, LayerData &data) {
  size_t bytes = 0;
  KVQ_EXPECT_OK(kvq_workspace_bytes(step, &bytes));
  Memory workspace(bytes);
  const kvq_tensor q = data.q.tensor(), k = data.k.tensor(), v = data.v.tensor(), out = data.out.tensor(),
                   lse = lseTensor(data.lse, data.q.batch, data.q.heads, data.q.tokens);
  kvq_error *error = kvq_forward(step, layer, &q, &k, &v, 0.25f, workspace.data(), bytes, nullptr, &out, &lse);
  EXPECT_TRUE(workspace.guardsIntact());
  return error;
}

kvq_error *Harness::attend(kvq_step *step, int layer, LayerData &data) {
  size_t bytes = 0;
  KVQ_EXPECT_OK(kvq_workspace_bytes(step, &bytes));
  Memory workspace(bytes);
  const kvq_tensor q = data.q.tensor(), out = data.out.tensor(),
                   lse = lseTensor(data.lse, data.q.batch, data.q.heads, data.q.tokens);
  kvq_error *error = kvq_attend(step, layer, &q, 0.25f, workspace.data(), bytes, nullptr, &out, &lse);
  EXPECT_TRUE(workspace.guardsIntact());
  return error;
}

void Harness::record(const StepData &data, int layer, const LayerData &layerData) {
  for (size_t b = 0; b < data.sequences.size(); ++b)
    for (int h = 0; h < setup.kvHeads; ++h) {
      Head &head = model[data.sequences[b]][layer * setup.kvHeads + h];
      for (int t = first(data, b); t < first(data, b) + data.newTokens[b]; ++t) {
        for (int c = 0; c < setup.dk; ++c)
          head.k.rows.push_back(layerData.k.get(layerData.k.index(b, h, t) + c));
        for (int c = 0; c < setup.dv; ++c)
          head.v.rows.push_back(layerData.v.get(layerData.v.index(b, h, t) + c));
      }
    }
}

// After record(). The tolerance is the accuracy class (attention_c4) and, for bf16, half a unit of its 8 bits.
void Harness::check(const StepData &data, int layer, const LayerData &layerData) {
  const double tolerance = setup.dtype == KVQ_F32 ? 1e-4 : 5e-3;
  const int ratio = setup.qHeads / setup.kvHeads;
  std::vector<double> expected;
  for (size_t b = 0; b < data.sequences.size(); ++b)
    for (int h = 0; h < setup.qHeads; ++h) {
      const Head &head = model[data.sequences[b]][layer * setup.kvHeads + h / ratio];
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
        const int64_t position = head.k.tokens() - data.newTokens[b] + token;
        const double lse = modelAttend(setup.model, head.k, head.v, position, q.data(), 0.25, expected);
        ASSERT_NEAR(layerData.lse[(b * setup.qHeads + h) * data.tokens + i], lse, 1e-4)
            << "sequence " << data.sequences[b] << " head " << h << " position " << position;
        for (int c = 0; c < setup.dv; ++c)
          ASSERT_NEAR(layerData.out.get(at + c), expected[c], tolerance * std::max(1.0, std::fabs(expected[c])))
              << "sequence " << data.sequences[b] << " head " << h << " position " << position << " channel " << c;
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
    } else {
      const kvq_tensor k = values.k.tensor(), v = values.v.tensor();
      KVQ_ASSERT_OK(kvq_append(step, layer, &k, &v));
      KVQ_ASSERT_OK(attend(step, layer, values));
    }
    record(data, layer, values);
    check(data, layer, values);
  }
  KVQ_ASSERT_OK(kvq_commit_step(step));
}

int64_t Harness::length(int32_t sequence) {
  int64_t tokens = -1;
  KVQ_EXPECT_OK(kvq_sequence_length(cache, sequence, &tokens));
  return tokens;
}

std::vector<float> Harness::readAll(int32_t sequence) {
  std::vector<float> all;
  const int tokens = static_cast<int>(length(sequence));
  for (int layer = 0; layer < setup.layers; ++layer) {
    Rows k(1, setup.kvHeads, tokens, setup.dk, setup.dtype), v(1, setup.kvHeads, tokens, setup.dv, setup.dtype);
    const auto view = [](const Rows &rows) {
      const kvq_tensor whole = rows.tensor();
      return kvq_tensor{whole.data,
                        whole.dtype,
                        KVQ_CPU,
                        3,
                        {whole.shape[1], whole.shape[2], whole.shape[3]},
                        {whole.strides[1], whole.strides[2], 1}};
    };
    const kvq_tensor kView = view(k), vView = view(v);
    KVQ_EXPECT_OK(kvq_read(cache, sequence, layer, &kView, &vView));
    for (const Rows *rows : {&k, &v}) {
      EXPECT_TRUE(rows->memory.guardsIntact());
      for (int64_t i = 0; i < int64_t(rows->heads) * tokens * rows->channels; ++i)
        all.push_back(rows->get(i));
    }
  }
  return all;
}

void Harness::checkRead(int32_t sequence) {
  const std::vector<float> read = readAll(sequence);
  const int64_t tokens = length(sequence);
  size_t at = 0;
  for (int layer = 0; layer < setup.layers; ++layer)
    for (bool isK : {true, false})
      for (int h = 0; h < setup.kvHeads; ++h) {
        const Head &head = model[sequence][layer * setup.kvHeads + h];
        const ModelFormat &format = setup.model;
        const std::vector<float> state = isK ? head.k.stateAt(format.k, format.kFrontier(tokens))
                                             : head.v.stateAt(format.v, format.vFrontier(tokens));
        ASSERT_LE(at + state.size(), read.size());
        for (float value : state) {
          const float expected = setup.dtype == KVQ_F32 ? value : roundBf16(value);
          ASSERT_EQ(read[at], expected) << (isK ? "K" : "V") << " of layer " << layer << " head " << h << " index "
                                        << at;
          ++at;
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
