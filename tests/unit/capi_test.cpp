// SPDX-License-Identifier: Apache-2.0
//
// The C API: every argument is checked, every refusal says what, which value and what to do. Merging and kernels
// without a cache are in capi_kernel_test.cpp.
#include "tests/unit/cache_harness.h"

#include "runtime/format/problem.h"

#include <kvq/kernel_abi.h>

#include <bit>
#include <cmath>

using namespace kvq_test;

extern "C" const char *kvq_version_from_c(void); // fakes/header_c11.c

namespace {

CacheSetup basic() {
  CacheSetup setup;
  setup.text = "k4c32-v4t16/w32,block";
  setup.model = kBlock;
  setup.qHeads = 4, setup.kvHeads = 2;
  return setup;
}

TEST(Error, NullIsNoError) {
  EXPECT_EQ(kvq_error_code(nullptr), KVQ_OK);
  EXPECT_STREQ(kvq_error_message(nullptr), "");
  kvq_error_free(nullptr);
  EXPECT_STREQ(kvq_version(), kvq_version_from_c());
}

// ---- formats ----

// layout_c4, for each profile.
TEST(Format, LayoutsAreTexts) {
  char k[256], v[256];
  KVQ_EXPECT_OK(kvq_format_layouts("kvq-4", "mma", 128, 128, 128, sizeof(k), k, v));
  EXPECT_STREQ(k, "[tok.1 ch.2 ch.0 ch.1 ch.5 ch.3 ch.4 tok.0 tok.3 tok.4 tok.2] ch:2 tok:4");
  EXPECT_STREQ(v, "[ch.3 tok.2 tok.0 tok.1 tok.5 tok.3 tok.4 ch.0 ch.1 ch.2] ch:8 tok:2");
  KVQ_EXPECT_OK(kvq_format_layouts("k3th-v3th", "vnni", 256, 256, 240, sizeof(k), k, v)); // the longest
  EXPECT_STREQ(k, "2:[ch.2 ch.3 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:16 tok:4 + "
                  "1:[ch.2 ch.3 tok.4 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:2 ch:16 tok:4");
  KVQ_EXPECT_OK(kvq_format_layouts("k2c32-v2t16", "kivi", 0, 64, 80, sizeof(k), k, v));
  EXPECT_STREQ(k, "[tok.0 tok.1 tok.2 tok.3] tok:4 ch:64");
  EXPECT_STREQ(v, "[ch.0 ch.1 ch.2 ch.3] ch:5 tok:64");
}

TEST(Format, LayoutsThatDoNotExistAreRefused) {
  char k[256] = "k", v[256] = "v";
  const auto refused = [&](const char *format, const char *profile, int tokens, int dv, size_t capacity,
                           const std::string &part) {
    KVQ_EXPECT_ERROR(kvq_format_layouts(format, profile, tokens, 64, dv, capacity, k, v), KVQ_INVALID_ARGUMENT, part);
    EXPECT_STREQ(k, "k");
    EXPECT_STREQ(v, "v");
  };
  refused("kvq-4", "row", 0, 64, sizeof(k), "layout profile 'row' is unknown: use vnni, kivi or mma");
  refused("kvq-3", "mma", 0, 64, sizeof(k), "width 3 of 'k3c32-v3t32' is not legal in the profile mma"); // layout_c6
  refused("kvq-5", "mma", 0, 64, sizeof(k), "kvq-5");
  refused("kvq-4", "mma", 40, 64, sizeof(k), "page size 40");
  refused("kvq-4", "mma", 0, 72, sizeof(k), "72");
  refused("kvq-4", "vnni", 0, 64, 57, "capacity 57 is too small: the text needs 58 bytes");
  KVQ_EXPECT_ERROR(kvq_format_layouts("kvq-4", nullptr, 0, 64, 64, 1, k, v), KVQ_INVALID_ARGUMENT, "profile is NULL");
}

TEST(Format, QuestionsAreAnswered) {
  char text[64];
  KVQ_EXPECT_OK(kvq_format_canonical("kivi-2", sizeof(text), text));
  EXPECT_STREQ(text, "k2c32-v2t32/w128,sliding");
  KVQ_EXPECT_ERROR(kvq_format_canonical("kivi-2", 24, text), KVQ_INVALID_ARGUMENT, "needs 25 bytes");
  KVQ_EXPECT_ERROR(kvq_format_canonical("kivi-9", sizeof(text), text), KVQ_INVALID_ARGUMENT, "kivi-9");
  int32_t tokens[3] = {};
  size_t count = 0;
  KVQ_EXPECT_OK(kvq_format_page_tokens("k4c64-v4t32", 3, tokens, &count));
  EXPECT_EQ(count, 4u); // 64, 128, 192, 256
  EXPECT_EQ(tokens[2], 192);
  KVQ_EXPECT_OK(kvq_format_page_tokens("k4c64-v4t32", 0, nullptr, &count));
  KVQ_EXPECT_ERROR(kvq_format_page_tokens("k4c64-v4t32", 1, nullptr, &count), KVQ_INVALID_ARGUMENT, "tokens is NULL");
  int64_t bytes = 0, k = 0, v = 0;
  KVQ_EXPECT_OK(kvq_format_page_bytes("kvq-4", 0, 64, 64, &bytes)); // page_c5: 5 bits an element
  EXPECT_EQ(bytes, 64 * 128 * 5 / 8);
  KVQ_EXPECT_ERROR(kvq_format_page_bytes("kvq-4", 40, 64, 64, &bytes), KVQ_INVALID_ARGUMENT, "page size 40");
  KVQ_EXPECT_ERROR(kvq_format_page_bytes("kvq-4", 0, 64, 72, &bytes), KVQ_INVALID_ARGUMENT, "72");
  KVQ_EXPECT_OK(kvq_format_frontier("kivi-4", 300, &k, &v));
  EXPECT_EQ(k, 256);
  EXPECT_EQ(v, 172);
  KVQ_EXPECT_ERROR(kvq_format_frontier("kivi-4", -1, &k, &v), KVQ_INVALID_ARGUMENT, "tokens is -1");
}

// ---- contexts and configurations ----

TEST(Context, OptionsAreChecked) {
  kvq_context *context = nullptr;
  kvq_context_options options{};
  KVQ_EXPECT_ERROR(kvq_context_create(nullptr, &context), KVQ_INVALID_ARGUMENT, "options is NULL");
  KVQ_EXPECT_ERROR(kvq_context_create(&options, &context), KVQ_INVALID_ARGUMENT, "struct_size is 0");
  options.struct_size = sizeof(options);
  KVQ_EXPECT_ERROR(kvq_context_create(&options, nullptr), KVQ_INVALID_ARGUMENT, "context is NULL");
  options.device = "gpu";
  KVQ_EXPECT_ERROR(kvq_context_create(&options, &context), KVQ_UNSUPPORTED, "device 'gpu'");
  options.device = "ref";
  options.level = "avx512";
  KVQ_EXPECT_ERROR(kvq_context_create(&options, &context), KVQ_INVALID_ARGUMENT, "level 'avx512'");
  options.level = nullptr;
  options.threads = -2;
  KVQ_EXPECT_ERROR(kvq_context_create(&options, &context), KVQ_INVALID_ARGUMENT, "threads is -2");
  EXPECT_EQ(context, nullptr);
  options.threads = 0;
  KVQ_ASSERT_OK(kvq_context_create(&options, &context));
  EXPECT_STREQ(kvq_context_level(context), "ref");
  EXPECT_STREQ(kvq_context_levels(context), "ref");
  kvq_kernel *kernel = nullptr;
  KVQ_EXPECT_ERROR(kvq_kernel_compile(context, "module {}", &kernel), KVQ_UNSUPPORTED, "built-in kernels only");
  kvq_context_destroy(context);
  kvq_context_destroy(nullptr);
}

// A caller that was built against a newer header: fine while it leaves the new fields zero.
TEST(Context, NewerStructsAreTakenWhereTheirFieldsAreZero) {
  struct {
    kvq_context_options options;
    int64_t added;
  } newer{};
  newer.options.struct_size = sizeof(newer);
  newer.options.device = "ref";
  kvq_context *context = nullptr;
  KVQ_ASSERT_OK(kvq_context_create(&newer.options, &context));
  kvq_context_destroy(context);
  newer.added = 1;
  KVQ_EXPECT_ERROR(kvq_context_create(&newer.options, &context), KVQ_UNSUPPORTED, "newer");
}

TEST(Config, EachFieldIsChecked) {
  Harness harness(basic());
  const auto refused = [&](auto change, kvq_code code, const char *part) {
    kvq_cache_config config = harness.config();
    change(config);
    size_t bytes = 99;
    KVQ_EXPECT_ERROR(kvq_cache_memory_bytes(&config, &bytes), code, part);
    KVQ_EXPECT_ERROR(kvq_query_support(harness.context, &config), code, part);
    kvq_cache *cache = nullptr;
    KVQ_EXPECT_ERROR(kvq_cache_create(harness.context, &config, harness.memory->data(), harness.memory->size(), &cache),
                     code, part);
    EXPECT_EQ(cache, nullptr);
    EXPECT_EQ(bytes, 99u);
  };
  using C = kvq_cache_config;
  refused([](C &c) { c.struct_size = 8; }, KVQ_INVALID_ARGUMENT, "struct_size is 8");
  refused([](C &c) { c.format = nullptr; }, KVQ_INVALID_ARGUMENT, "format is NULL");
  refused([](C &c) { c.format = "k5c32-v4t16"; }, KVQ_INVALID_ARGUMENT, "'5'");
  refused([](C &c) { c.layers = 0; }, KVQ_INVALID_ARGUMENT, "layers is 0");
  refused([](C &c) { c.kv_heads = -1; }, KVQ_INVALID_ARGUMENT, "kv_heads is -1");
  refused([](C &c) { c.q_heads = 5; }, KVQ_INVALID_ARGUMENT, "q_heads 5 is not a multiple of kv_heads 2");
  refused([](C &c) { c.q_heads = 130; }, KVQ_UNSUPPORTED, "65 query heads");
  refused([](C &c) { c.dk = 20; }, KVQ_INVALID_ARGUMENT, "20");
  refused([](C &c) { c.dv = 272; }, KVQ_INVALID_ARGUMENT, "272");
  refused([](C &c) { c.page_tokens = 48; }, KVQ_INVALID_ARGUMENT, "page size 48");
  refused([](C &c) { c.blocks = 0; }, KVQ_INVALID_ARGUMENT, "blocks is 0");
  refused([](C &c) { c.blocks = int64_t(1) << 40; }, KVQ_INVALID_ARGUMENT, "blocks 1099511627776");
  refused([](C &c) { c.sequences = 0; }, KVQ_INVALID_ARGUMENT, "sequences is 0");
  refused([](C &c) { c.dtype = static_cast<kvq_dtype>(5); }, KVQ_INVALID_ARGUMENT,
          "config has the unknown dtype 5: use KVQ_F32, KVQ_BF16 or KVQ_F16");
  refused([](C &c) { c.attention_window = -1; }, KVQ_INVALID_ARGUMENT, "attention_window is -1");
  refused([](C &c) { c.score_cap = -0.5f; }, KVQ_INVALID_ARGUMENT, "score_cap is -0.5");
  refused([](C &c) { c.score_cap = NAN; }, KVQ_INVALID_ARGUMENT, "score_cap is nan");
  refused([](C &c) { c.score_cap = INFINITY; }, KVQ_INVALID_ARGUMENT, "score_cap is inf");
  refused([](C &c) { c.accuracy = static_cast<kvq_accuracy>(5); }, KVQ_INVALID_ARGUMENT,
          "config has the unknown accuracy 5: use KVQ_ACCURACY_DEFAULT or the constant of one of full, exact, normal, "
          "fast");
  refused([](C &c) { c.accuracy = static_cast<kvq_accuracy>(-1); }, KVQ_INVALID_ARGUMENT, "unknown accuracy -1");
  refused([](C &c) { c.format = "k4c32-v4t16/w40,flush"; }, KVQ_INVALID_ARGUMENT, "w40,flush");
  refused([](C &c) { c.blocks = 2000000000, c.layers = 65536, c.q_heads = c.kv_heads = 65536, c.dk = c.dv = 256; },
          KVQ_INVALID_ARGUMENT, "block numbers have 32 bits");
  refused(
      [](C &c) {
        c.blocks = 2000000000, c.layers = 65536, c.q_heads = c.kv_heads = 1, c.dk = c.dv = c.page_tokens = 256;
      },
      KVQ_INVALID_ARGUMENT, "more memory than can be addressed");
  const kvq_cache_config good = harness.config();
  kvq_cache *cache = nullptr;
  KVQ_EXPECT_OK(kvq_query_support(harness.context, &good));
  KVQ_EXPECT_ERROR(kvq_cache_create(harness.context, &good, nullptr, 1 << 30, &cache), KVQ_INVALID_ARGUMENT, "NULL");
  KVQ_EXPECT_ERROR(kvq_cache_create(harness.context, &good, harness.memory->data(), 100, &cache), KVQ_INVALID_ARGUMENT,
                   "100 bytes is too small");
  KVQ_EXPECT_ERROR(kvq_cache_create(harness.context, &good, harness.memory->data() + 8, 1 << 30, &cache),
                   KVQ_INVALID_ARGUMENT, "aligned to 64");
  KVQ_EXPECT_ERROR(kvq_cache_create(nullptr, &good, harness.memory->data(), 1 << 30, &cache), KVQ_INVALID_ARGUMENT,
                   "context is NULL");
}

// ---- accuracy classes ----

TEST(Accuracy, ClassesAreListed) {
  EXPECT_STREQ(kvq_accuracy_classes(), "full exact normal fast");
  EXPECT_STREQ(kvq_accuracy_name(KVQ_ACCURACY_EXACT), "exact");
  EXPECT_STREQ(kvq_accuracy_name(KVQ_ACCURACY_NORMAL), "normal");
  EXPECT_STREQ(kvq_accuracy_name(KVQ_ACCURACY_FAST), "fast");
  EXPECT_STREQ(kvq_accuracy_name(KVQ_ACCURACY_DEFAULT), std::string(kvq::toText(kvq::kDefaultAccuracy)).c_str());
  EXPECT_EQ(kvq_accuracy_name(static_cast<kvq_accuracy>(5)), nullptr);
  EXPECT_EQ(kvq_accuracy_name(static_cast<kvq_accuracy>(-1)), nullptr);
}

// The class stands in the request of attend alone, and the report says which it is.
TEST(Accuracy, ACacheKeepsToItsClass) {
  Harness harness(basic());
  for (kvq_accuracy given :
       {KVQ_ACCURACY_DEFAULT, KVQ_ACCURACY_FULL, KVQ_ACCURACY_EXACT, KVQ_ACCURACY_NORMAL, KVQ_ACCURACY_FAST}) {
    kvq_cache_config config = harness.config();
    config.accuracy = given;
    Memory memory(harness.memory->size());
    kvq_cache *cache = nullptr;
    KVQ_ASSERT_OK(kvq_cache_create(harness.context, &config, memory.data(), memory.size(), &cache));
    std::vector<std::string> names;
    KVQ_EXPECT_OK(kvq_cache_prepare(
        cache,
        [](void *into, const kvq_kernel_info *info) {
          static_cast<std::vector<std::string> *>(into)->push_back(info->name);
        },
        &names));
    const std::string name = kvq_accuracy_name(given);
    for (const std::string &kernel : names)
      EXPECT_TRUE(kernel.ends_with(kernel.starts_with("attend:") ? ":" + name : ":exact")) << kernel;
    kvq_cache_report report = {};
    report.struct_size = sizeof report;
    KVQ_EXPECT_OK(kvq_report(cache, &report));
    EXPECT_EQ(kvq_accuracy_name(report.accuracy), kvq_accuracy_name(given));
    EXPECT_NE(report.accuracy, KVQ_ACCURACY_DEFAULT);
    report.struct_size = offsetof(kvq_cache_report, accuracy);
    report.accuracy = static_cast<kvq_accuracy>(7); // behind an older header's struct
    KVQ_EXPECT_OK(kvq_report(cache, &report));
    EXPECT_EQ(static_cast<int>(report.accuracy), 7);
    kvq_cache_destroy(cache);
  }
}

// A snapshot holds codes, which do not depend on the class.
TEST(Accuracy, SnapshotsGoFromClassToClass) {
  Harness harness(basic());
  kvq_cache_config config = harness.config();
  config.accuracy = KVQ_ACCURACY_FAST;
  const Memory memory(harness.memory->size());
  const Shown shown(harness.context, memory, harness.onDevice);
  kvq_cache *fast = nullptr;
  KVQ_ASSERT_OK(kvq_cache_create(harness.context, &config, shown.data(), memory.size(), &fast));
  int32_t from = -1, to = -1;
  size_t bytes = 0;
  KVQ_EXPECT_OK(kvq_sequence_add(fast, &from));
  KVQ_EXPECT_OK(kvq_sequence_snapshot_bytes(fast, from, &bytes));
  std::vector<uint8_t> data(bytes);
  KVQ_EXPECT_OK(kvq_sequence_snapshot(fast, from, data.data(), bytes));
  KVQ_EXPECT_OK(kvq_sequence_restore(harness.cache, data.data(), bytes, &to));
  kvq_cache_destroy(fast);
}

// ---- callers that were built against 0.1: without the fields that came with 0.2 ----

TEST(OlderHeader, ItsConfigurationIsTaken) {
  Harness harness(basic());
  kvq_cache_config config = harness.config();
  config.attention_window = 77; // where 0.1 has padding, which may hold anything
  config.score_cap = NAN;       // behind its struct
  config.accuracy = static_cast<kvq_accuracy>(99);
  config.struct_size = 64;
  size_t bytes = 0;
  KVQ_EXPECT_OK(kvq_cache_memory_bytes(&config, &bytes));
  EXPECT_EQ(bytes, harness.memory->size());
  Memory memory(bytes);
  kvq_cache *cache = nullptr;
  KVQ_ASSERT_OK(kvq_cache_create(harness.context, &config, memory.data(), bytes, &cache));
  // It has no window: its snapshots are those of the other cache, which has none.
  int32_t from = -1, to = -1;
  KVQ_EXPECT_OK(kvq_sequence_add(cache, &from));
  KVQ_EXPECT_OK(kvq_sequence_snapshot_bytes(cache, from, &bytes));
  std::vector<uint8_t> data(bytes);
  KVQ_EXPECT_OK(kvq_sequence_snapshot(cache, from, data.data(), bytes));
  KVQ_EXPECT_OK(kvq_sequence_restore(harness.cache, data.data(), bytes, &to));
  kvq_cache_destroy(cache);
  config.struct_size = 59;
  KVQ_EXPECT_ERROR(kvq_cache_memory_bytes(&config, &bytes), KVQ_INVALID_ARGUMENT, "struct_size is 59");
}

TEST(OlderHeader, ItsPlanIsTaken) {
  Harness harness(basic());
  const int32_t a = harness.add(), three = 3;
  kvq_plan_desc desc{};
  desc.count = 1, desc.sequences = &a, desc.new_tokens = &three;
  desc.past_only = 1; // behind its struct
  desc.struct_size = 40;
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(kvq_plan(harness.cache, &desc, &step));
  Harness::LayerData values = harness.random({{a}, {3}, {}, 3});
  KVQ_EXPECT_ERROR(harness.attend(step, 0, values), KVQ_FAILED_PRECONDITION, "has not appended");
  kvq_abort_step(step);
  int64_t blocks = -1;
  KVQ_EXPECT_OK(kvq_plan_blocks(harness.cache, &desc, &blocks));
  EXPECT_EQ(blocks, 0);
  desc.struct_size = 39;
  KVQ_EXPECT_ERROR(kvq_plan(harness.cache, &desc, &step), KVQ_INVALID_ARGUMENT, "struct_size is 39");
  KVQ_EXPECT_ERROR(kvq_plan_blocks(harness.cache, &desc, &blocks), KVQ_INVALID_ARGUMENT, "struct_size is 39");
}

TEST(OlderHeader, ItsReportIsFilledAndNoMore) {
  Harness harness(basic());
  harness.extend(harness.add(), 10);
  kvq_cache_report report{};
  report.bytes_touched = -5;
  report.struct_size = 80;
  KVQ_EXPECT_OK(kvq_report(harness.cache, &report));
  EXPECT_EQ(report.tokens, 10);
  EXPECT_EQ(report.struct_size, 80u);
  EXPECT_EQ(report.bytes_touched, -5);
  report.struct_size = 79;
  KVQ_EXPECT_ERROR(kvq_report(harness.cache, &report), KVQ_INVALID_ARGUMENT, "struct_size is 79");
}

// ---- what came with 0.2 ----

TEST(State, IsThatOfTheSequence) {
  Harness harness(basic());
  const int32_t a = harness.add();
  harness.extend(a, 150);
  kvq_sequence_state state{};
  state.struct_size = sizeof(state) - 1;
  KVQ_EXPECT_ERROR(kvq_sequence_get_state(harness.cache, a, &state), KVQ_INVALID_ARGUMENT, "struct_size is 55");
  state.struct_size = sizeof(state);
  KVQ_EXPECT_ERROR(kvq_sequence_get_state(harness.cache, 3, &state), KVQ_INVALID_ARGUMENT, "sequence 3");
  KVQ_EXPECT_ERROR(kvq_sequence_get_state(harness.cache, a, nullptr), KVQ_INVALID_ARGUMENT, "state is NULL");
  KVQ_EXPECT_OK(kvq_sequence_get_state(harness.cache, a, &state));
  EXPECT_EQ(state.tokens, 150);
  EXPECT_EQ(state.k_frontier, 96);
  EXPECT_EQ(state.v_frontier, 96);
  EXPECT_EQ(state.first_block, 0);
  EXPECT_EQ(state.blocks, 2);
  EXPECT_EQ(state.least_tokens, 0);
}

TEST(Sinks, AreChecked) {
  CacheSetup setup = basic();
  setup.layers = 2;
  Harness harness(setup);
  const auto set = [&](int32_t layer, std::vector<float> logits) {
    return kvq_cache_set_sinks(harness.cache, layer, logits.data(), static_cast<int32_t>(logits.size()));
  };
  KVQ_EXPECT_ERROR(kvq_cache_set_sinks(harness.cache, 0, nullptr, 4), KVQ_INVALID_ARGUMENT, "logits is NULL");
  KVQ_EXPECT_ERROR(set(2, {1, 2, 3, 4}), KVQ_INVALID_ARGUMENT, "layer 2 does not exist");
  KVQ_EXPECT_ERROR(set(0, {1, 2, 3}), KVQ_INVALID_ARGUMENT, "count is 3 but must be the 4 query heads");
  KVQ_EXPECT_ERROR(set(0, {1, NAN, 3, 4}), KVQ_INVALID_ARGUMENT, "sink logit of head 1 is nan");
  KVQ_EXPECT_ERROR(set(0, {1, 2, 3, INFINITY}), KVQ_INVALID_ARGUMENT, "sink logit of head 3 is inf");
  // None of these has set any: layer 0 answers as without.
  const int32_t a = harness.add();
  harness.extend(a, 40);
  harness.sinks = {1, -INFINITY, -3, 4, 0, 0.5f, -INFINITY, 2};
  KVQ_EXPECT_OK(set(0, {1, -INFINITY, -3, 4}));
  KVQ_EXPECT_OK(set(1, {0, 0.5f, -INFINITY, 2}));
  harness.extend(a, 40);
  harness.sinks.assign(8, -INFINITY);
  for (int32_t layer : {0, 1})
    KVQ_EXPECT_OK(set(layer, std::vector<float>(4, -INFINITY)));
  harness.extend(a, 40);
}

// prefill_c2: attention comes before append.
TEST(PastOnly, TheOrderIsChecked) {
  CacheSetup setup = basic();
  setup.layers = 2;
  Harness harness(setup);
  const int32_t a = harness.add();
  harness.extend(a, 70);
  const StepData data = {{a}, {40}, {}, 40, true};
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(harness.plan(data, &step));
  Harness::LayerData values = harness.random(data);
  for (int layer : {-1, 2, 1 << 30})
    KVQ_EXPECT_ERROR(harness.attend(step, layer, values), KVQ_INVALID_ARGUMENT,
                     "layer " + std::to_string(layer) + " does not exist");
  KVQ_ASSERT_OK(harness.attend(step, 0, values));
  KVQ_ASSERT_OK(harness.attend(step, 0, values)); // it has changed nothing
  KVQ_ASSERT_OK(harness.append(step, 0, values));
  KVQ_EXPECT_ERROR(harness.attend(step, 0, values), KVQ_FAILED_PRECONDITION, "call kvq_attend first");
  KVQ_EXPECT_ERROR(harness.forward(step, 0, values), KVQ_FAILED_PRECONDITION, "already appended");
  KVQ_EXPECT_ERROR(kvq_commit_step(step), KVQ_FAILED_PRECONDITION, "layer 1 has not appended");
  KVQ_ASSERT_OK(harness.append(step, 1, values));
  for (int layer : {0, 1})
    harness.record(data, layer, values);
  KVQ_ASSERT_OK(kvq_commit_step(step));
  harness.extend(a, 1);
  harness.checkRead(a);
}

// bytes_touched: of blocks and slots, whatever is in use now. A block of two layers and a slot, by tail_c2.
TEST(Report, BytesTouchedNeverFallAndCountOnce) {
  CacheSetup setup = basic();
  setup.layers = 2, setup.pageTokens = 64, setup.blocks = 5;
  Harness harness(setup);
  const int64_t block = 2 * 2 * (512 + 64 + 64 + 512 + 128 + 128), slot = 2 * 2 * 96 * (16 + 16) * 4;
  EXPECT_EQ(harness.report().bytes_touched, 0);
  const int32_t a = harness.add();
  EXPECT_EQ(harness.report().bytes_touched, slot);
  harness.extend(a, 150);
  EXPECT_EQ(harness.report().bytes_touched, slot + 2 * block);
  const int32_t b = harness.fork(a);
  EXPECT_EQ(harness.report().bytes_touched, 2 * slot + 2 * block);
  harness.abort({{b}, {10}, {}, 10}); // a copy, given back
  EXPECT_EQ(harness.report().bytes_touched, 2 * slot + 3 * block);
  const std::vector<uint8_t> data = harness.snapshot(a);
  harness.remove(a);
  harness.remove(b);
  EXPECT_EQ(harness.report().bytes_used, 0);
  const int32_t c = harness.add();
  harness.extend(c, 180);
  EXPECT_EQ(harness.report().bytes_touched, 2 * slot + 3 * block);
  const int32_t d = harness.add();
  harness.extend(d, 180); // 128 of 180 in each
  EXPECT_EQ(harness.report().blocks_used, 4);
  EXPECT_EQ(harness.report().bytes_touched, 2 * slot + 4 * block);
  int32_t id = -1;
  KVQ_EXPECT_ERROR(kvq_sequence_restore(harness.cache, data.data(), data.size(), &id), KVQ_RESOURCE_EXHAUSTED,
                   "needs 2 blocks");
  EXPECT_EQ(harness.report().bytes_touched, 2 * slot + 4 * block);
  EXPECT_EQ(harness.report().bytes_reserved, 4 * slot + 8 * block); // page_c4: two runs of 4
}

// ---- tensors ----

class Tensors : public ::testing::Test {
protected:
  void SetUp() override {
    ASSERT_EQ(Outcome(harness.plan(data, &step)).code, KVQ_OK);
    values = std::make_unique<Harness::LayerData>(harness.random(data));
    size_t bytes = 0;
    KVQ_ASSERT_OK(kvq_workspace_bytes(step, &bytes));
    workspace = std::make_unique<Memory>(bytes);
    q = values->q.tensor(), k = values->k.tensor(), v = values->v.tensor(), out = values->out.tensor();
  }
  void TearDown() override { kvq_abort_step(step); }
  Outcome forward(void *stream = nullptr, const kvq_tensor *lse = nullptr) {
    return kvq_forward(step, 0, &q, &k, &v, scale, workspace->data(), workspace->size(), stream, &out, lse);
  }
  // The change is refused by every function that takes the tensor, and undone.
  template <typename Change> void refused(Change change, kvq_code code, const std::string &part) {
    const kvq_tensor old[] = {q, k, v, out};
    change();
    Outcome outcome = forward();
    EXPECT_EQ(outcome.code, code) << outcome.message;
    EXPECT_NE(outcome.message.find(part), std::string::npos) << outcome.message;
    q = old[0], k = old[1], v = old[2], out = old[3];
  }
  Harness harness{basic()};
  StepData data = {{harness.add(), harness.add()}, {3, 5}, {}, 5};
  kvq_step *step = nullptr;
  std::unique_ptr<Harness::LayerData> values;
  std::unique_ptr<Memory> workspace;
  kvq_tensor q, k, v, out;
  float scale = 0.25f;
};

TEST_F(Tensors, EachPropertyIsCheckedAndNamed) {
  refused([&] { k.device = KVQ_CUDA; }, KVQ_UNSUPPORTED,
          "k is a CUDA tensor, which kernels of this context's device do not see: move it to the CPU");
  refused([&] { out.device = KVQ_CUDA; }, KVQ_UNSUPPORTED, "out is a CUDA tensor");
  refused([&] { q.device = static_cast<kvq_device>(9); }, KVQ_INVALID_ARGUMENT, "device 9");
  refused([&] { v.dtype = KVQ_BF16; }, KVQ_INVALID_ARGUMENT, "v is bf16 but must be f32");
  refused([&] { out.dtype = KVQ_F16; }, KVQ_INVALID_ARGUMENT, "out is f16 but must be f32: convert it");
  refused([&] { v.dtype = static_cast<kvq_dtype>(4); }, KVQ_INVALID_ARGUMENT, "dtype 4");
  refused([&] { q.ndim = 3; }, KVQ_INVALID_ARGUMENT, "q has 3 dimensions but must have 4");
  refused([&] { q.shape[0] = 1; }, KVQ_INVALID_ARGUMENT, "q has shape [1, 4, 5, 16] but must have [2, 4, T, 16]");
  refused([&] { k.shape[1] = 4; }, KVQ_INVALID_ARGUMENT, "k has shape [2, 4, 5, 16]");
  refused([&] { v.shape[3] = 15; }, KVQ_INVALID_ARGUMENT, "v has shape");
  refused([&] { v.shape[2] = 4; }, KVQ_INVALID_ARGUMENT, "v has shape [2, 2, 4, 16] but must have [2, 2, 5, 16]");
  refused([&] { q.shape[2] = k.shape[2] = v.shape[2] = out.shape[2] = 4; }, KVQ_INVALID_ARGUMENT,
          "q holds 4 tokens, but sequence 1 of the plan needs 5");
  refused([&] { k.strides[3] = 2; }, KVQ_INVALID_ARGUMENT, "k has stride 2 in its last dimension");
  refused([&] { out.strides[0] = 0; }, KVQ_INVALID_ARGUMENT, "out is written to but has stride 0 in dimension 0");
  refused([&] { v.data = nullptr; }, KVQ_INVALID_ARGUMENT, "v has no data");
  refused([&] { q.data = static_cast<char *>(q.data) + 1; }, KVQ_INVALID_ARGUMENT, "q is not aligned");
  EXPECT_EQ(forward().code, KVQ_OK); // nothing of this has used up the layer
}

TEST_F(Tensors, OtherArgumentsAreChecked) {
  scale = NAN;
  EXPECT_NE(forward().message.find("scale is nan"), std::string::npos);
  scale = 0.25f;
  EXPECT_NE(forward(&scale).message.find("stream must be NULL"), std::string::npos);
  kvq_tensor lse = {values->lse.memory.data(), KVQ_F32, KVQ_CPU, 3, {2, 4, 6, 0}, {24, 6, 1, 0}};
  EXPECT_NE(forward(nullptr, &lse).message.find("lse has shape [2, 4, 6]"), std::string::npos);
  const auto with = [&](void *memory, size_t bytes) {
    return Outcome(kvq_forward(step, 0, &q, &k, &v, scale, memory, bytes, nullptr, &out, nullptr)).message;
  };
  EXPECT_NE(with(nullptr, 1 << 20).find("workspace is NULL"), std::string::npos);
  EXPECT_NE(with(workspace->data(), workspace->size() - 1).find("too small"), std::string::npos);
  EXPECT_NE(with(workspace->data() + 4, workspace->size()).find("aligned"), std::string::npos);
  KVQ_EXPECT_ERROR(kvq_append(step, -1, &k, &v), KVQ_INVALID_ARGUMENT, "layer -1");
  KVQ_EXPECT_ERROR(kvq_append(step, 0, nullptr, &v), KVQ_INVALID_ARGUMENT, "k is NULL");
  KVQ_EXPECT_ERROR(kvq_append(nullptr, 0, &k, &v), KVQ_INVALID_ARGUMENT, "step is NULL");
  KVQ_EXPECT_ERROR(kvq_commit_step(nullptr), KVQ_INVALID_ARGUMENT, "step is NULL");
}

// Transposed and broadcast inputs are ordinary strides.
TEST_F(Tensors, StridedInputsAreReadWhereTheyLie) {
  Harness::LayerData plain = harness.random(data);
  std::vector<float> moved(2 * 5 * 2 * 16, NAN); // [batch, token, head, channel]
  for (int b = 0; b < 2; ++b)
    for (int h = 0; h < 2; ++h)
      for (int t = 0; t < 5; ++t)
        for (int c = 0; c < 16; ++c)
          moved[((b * 5 + t) * 2 + h) * 16 + c] = plain.k.get(plain.k.index(b, h, t) + c);
  kvq_tensor transposed = plain.k.tensor();
  transposed.data = moved.data();
  transposed.strides[0] = 160, transposed.strides[1] = 16, transposed.strides[2] = 32;
  q = plain.q.tensor(), v = plain.v.tensor(), out = plain.out.tensor();
  k = transposed;
  Outcome outcome = forward();
  ASSERT_EQ(outcome.code, KVQ_OK) << outcome.message;
  harness.record(data, 0, plain);
  for (int h = 0; h < 4; ++h) {
    std::vector<float> query(16);
    for (int c = 0; c < 16; ++c)
      query[c] = plain.q.get(plain.q.index(1, h, 4) + c);
    std::vector<double> expected;
    modelAttend(kBlock, {}, harness.model[1][h / 2], 4, false, query.data(), -INFINITY, expected);
    for (int c = 0; c < 16; ++c)
      EXPECT_NEAR(plain.out.get(plain.out.index(1, h, 4) + c), expected[c], 1e-5);
  }
}

TEST(Plan, DescriptionsAreChecked) {
  Harness harness(basic());
  const int32_t a = harness.add(), one = 1;
  kvq_step *step = nullptr;
  kvq_plan_desc desc{};
  KVQ_EXPECT_ERROR(kvq_plan(harness.cache, nullptr, &step), KVQ_INVALID_ARGUMENT, "desc is NULL");
  KVQ_EXPECT_ERROR(kvq_plan(harness.cache, &desc, &step), KVQ_INVALID_ARGUMENT, "struct_size is 0");
  desc.struct_size = sizeof(desc);
  KVQ_EXPECT_ERROR(kvq_plan(harness.cache, &desc, &step), KVQ_INVALID_ARGUMENT, "count is 0");
  desc.count = 5;
  KVQ_EXPECT_ERROR(kvq_plan(harness.cache, &desc, &step), KVQ_INVALID_ARGUMENT, "count is 5");
  desc.count = 1;
  KVQ_EXPECT_ERROR(kvq_plan(harness.cache, &desc, &step), KVQ_INVALID_ARGUMENT, "desc->sequences is NULL");
  desc.sequences = &a;
  KVQ_EXPECT_ERROR(kvq_plan(harness.cache, &desc, &step), KVQ_INVALID_ARGUMENT, "desc->new_tokens is NULL");
  const int32_t many = 2147483647;
  desc.new_tokens = &many;
  KVQ_EXPECT_ERROR(kvq_plan(harness.cache, &desc, &step), KVQ_UNSUPPORTED, "2147352575 tokens");
  desc.new_tokens = &one;
  KVQ_EXPECT_ERROR(kvq_plan(harness.cache, &desc, nullptr), KVQ_INVALID_ARGUMENT, "step is NULL");
  KVQ_ASSERT_OK(kvq_plan(harness.cache, &desc, &step));
  kvq_abort_step(step);
  kvq_abort_step(nullptr);
}

TEST(Read, IsRefusedWhereItCannotBeRight) {
  Harness harness(basic());
  const int32_t a = harness.add();
  harness.step({{a}, {40}, {}, 40});
  Rows k(1, 2, 40, 16, KVQ_F32), v(1, 2, 40, 16, KVQ_F32);
  kvq_tensor kView = {k.memory.data(), KVQ_F32, KVQ_CPU, 3, {2, 40, 16, 0}, {640, 16, 1, 0}}, vView = kView;
  vView.data = v.memory.data();
  KVQ_EXPECT_ERROR(kvq_read(harness.cache, a, 1, &kView, &vView), KVQ_INVALID_ARGUMENT, "layer 1 does not exist");
  KVQ_EXPECT_ERROR(kvq_read(harness.cache, 2, 0, &kView, &vView), KVQ_INVALID_ARGUMENT, "sequence 2");
  kvq_tensor shorter = kView;
  shorter.shape[1] = 39;
  KVQ_EXPECT_ERROR(kvq_read(harness.cache, a, 0, &shorter, &vView), KVQ_INVALID_ARGUMENT, "must have [2, 40, 16]");
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(harness.plan({{a}, {1}, {}, 1}, &step));
  KVQ_EXPECT_ERROR(kvq_read(harness.cache, a, 0, &kView, &vView), KVQ_FAILED_PRECONDITION, "step is open");
  kvq_abort_step(step);
  KVQ_EXPECT_OK(kvq_read(harness.cache, a, 0, &kView, &vView));
}

} // namespace
