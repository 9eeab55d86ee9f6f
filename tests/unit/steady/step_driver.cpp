// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/steady/step_driver.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <unistd.h>

namespace fs = std::filesystem;

namespace kvq_test {

void StepDriver::Free::operator()(void *memory) const { std::free(memory); }

static uint8_t *aligned(size_t bytes) { return static_cast<uint8_t *>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)); }

bool StepDriver::ended(kvq_error *error, const char *what) {
  if (error && failure_.empty())
    failure_ = std::string(what) + ": " + kvq_error_message(error);
  kvq_error_free(error);
  return !error;
}

StepDriver::StepDriver(const StepSetup &setup) : setup_(setup) {
  kvq_context_options options{};
  options.struct_size = sizeof(options);
  options.threads = setup.threads;
  options.parallel_for = setup.parallel;
  options.compiler = IDLE_COMPILER;
  if (setup.generated) {
    options.compiler = std::getenv("KVQ_TEST_COMPILER"); // its store is $KVQ_STORE
  } else {
    store_ = (fs::temp_directory_path() / "kvq-steady-XXXXXX").string();
    if (!mkdtemp(store_.data()))
      failure_ = "no folder for the store";
    options.store_dir = store_.c_str();
  }
  if (!ended(kvq_context_create(&options, &context_), "context"))
    return;
  kvq_cache_config config{};
  config.struct_size = sizeof(config);
  config.format = setup.format.c_str();
  config.layers = setup.layers;
  config.q_heads = setup.qHeads;
  config.kv_heads = setup.kvHeads;
  config.dk = config.dv = setup.dim;
  config.blocks = setup.blocks;
  config.sequences = setup.sequences + 1; // one to fork into
  config.attention_window = setup.attentionWindow;
  size_t bytes = 0;
  if (!ended(kvq_cache_memory_bytes(&config, &bytes), "memory"))
    return;
  memory_.reset(aligned(bytes));
  if (!ended(kvq_cache_create(context_, &config, memory_.get(), bytes, &cache_), "cache"))
    return;
  sequences_.resize(setup.sequences);
  for (int32_t &sequence : sequences_)
    ended(kvq_sequence_add(cache_, &sequence), "add");
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const size_t tokens = size_t(setup.sequences) * setup.longest;
  for (auto *values : {&q_, &k_, &v_, &out_})
    values->resize(tokens * setup.qHeads * setup.dim);
  for (auto *values : {&q_, &k_, &v_})
    std::generate(values->begin(), values->end(), [&] { return normal(random); });
  workspaceBytes_ = size_t(64) << 20; // untouched until it is needed
  workspace_.reset(aligned(workspaceBytes_));
}

StepDriver::~StepDriver() {
  kvq_cache_destroy(cache_);
  kvq_context_destroy(context_);
  if (!store_.empty())
    fs::remove_all(store_);
}

kvq_tensor StepDriver::rows(std::vector<float> &values, int heads, int tokens) const {
  const int64_t dim = setup_.dim;
  return {values.data(),
          KVQ_F32,
          KVQ_CPU,
          4,
          {setup_.sequences, heads, tokens, dim},
          {heads * tokens * dim, tokens * dim, dim, 1}};
}

kvq_error *StepDriver::layers(kvq_step *step, int tokens) {
  const kvq_tensor q = rows(q_, setup_.qHeads, tokens), k = rows(k_, setup_.kvHeads, tokens),
                   v = rows(v_, setup_.kvHeads, tokens), out = rows(out_, setup_.qHeads, tokens);
  for (int layer = 0; layer < setup_.layers; ++layer)
    if (kvq_error *error =
            kvq_forward(step, layer, &q, &k, &v, 0.25f, workspace_.get(), workspaceBytes_, nullptr, &out, nullptr))
      return error;
  return nullptr;
}

kvq_error *StepDriver::open(const std::vector<int32_t> &newTokens, kvq_step **step) {
  kvq_plan_desc desc{};
  desc.struct_size = sizeof(desc);
  desc.count = static_cast<int32_t>(newTokens.size());
  desc.sequences = sequences_.data();
  desc.new_tokens = newTokens.data();
  return kvq_plan(cache_, &desc, step);
}

kvq_error *StepDriver::plan(const std::vector<int32_t> &newTokens) {
  kvq_step *step = nullptr;
  if (kvq_error *error = open(newTokens, &step))
    return error;
  if (kvq_error *error = layers(step, *std::max_element(newTokens.begin(), newTokens.end()))) {
    kvq_abort_step(step);
    return error;
  }
  return kvq_commit_step(step);
}

void StepDriver::abort(const std::vector<int32_t> &newTokens) {
  kvq_step *step = nullptr;
  if (!ended(open(newTokens, &step), "plan"))
    return;
  ended(layers(step, *std::max_element(newTokens.begin(), newTokens.end())), "forward");
  kvq_abort_step(step);
}

void StepDriver::fill(const std::vector<int64_t> &lengths) {
  std::vector<int32_t> newTokens(lengths.size());
  for (bool more = true; more && failure_.empty();) {
    for (size_t i = 0; i < lengths.size(); ++i)
      newTokens[i] = static_cast<int32_t>(std::min<int64_t>(setup_.longest, lengths[i] - length(static_cast<int>(i))));
    more = std::any_of(newTokens.begin(), newTokens.end(), [](int32_t count) { return count > 0; });
    if (more)
      step(newTokens);
  }
}

int32_t StepDriver::fork(int32_t sequence) {
  int32_t id = -1;
  ended(kvq_sequence_fork(cache_, sequence, &id), "fork");
  return id;
}

int64_t StepDriver::length(int index) const {
  int64_t tokens = 0;
  kvq_error_free(kvq_sequence_length(cache_, sequences_[index], &tokens));
  return tokens;
}

} // namespace kvq_test
