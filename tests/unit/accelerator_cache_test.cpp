// SPDX-License-Identifier: Apache-2.0
//
// What is special about a cache on a device with memory and streams of its own, on the fake one: it answers what device
// "ref" answers, waits where it must, sends little, and fails whole. All other tests of caches run on it too
// (cache_on_fake_accelerator).
#include "tests/unit/cache_harness.h"
#include "tests/unit/fakes/fake_accelerator.h"

#include <cstdio>
#include <sys/wait.h>
#include <unistd.h>

using namespace kvq_test;

namespace {

FakeControl &fake() { return *kvq_fake_control(); }

class OnFake : public ::testing::TestWithParam<CacheSetup> {
protected:
  void SetUp() override {
    setenv("KVQ_PTXSIM", FAKE_ACCELERATOR, 1);
    fake() = {};
  }
  void TearDown() override {
    EXPECT_EQ(fake().live, 0) << "memory that nobody released";
    fake() = {};
  }
  static CacheSetup on(const char *device, CacheSetup setup, int layers = 2) {
    setup.device = device;
    setup.layers = layers;
    setup.pageTokens = 64;
    setup.kvHeads = 2, setup.qHeads = 4;
    return setup;
  }
  CacheSetup onFake(int layers = 2) const { return on("ptxsim", GetParam(), layers); }
};
using OnFakeOnce = OnFake; // formats make no difference
INSTANTIATE_TEST_SUITE_P(Rules, OnFake, ::testing::ValuesIn(oneOfEachRule()), ruleName);

// Outputs, log-sum-exps and all stored bytes of a program that uses everything that changes a sequence; the sentence of
// the first call that failed, if one did.
struct Ran {
  std::vector<uint8_t> bytes;
  std::string failure;
  bool operator==(const Ran &) const = default;
};

class Program {
public:
  explicit Program(const CacheSetup &setup) : harness_(setup) {}

  Ran run() {
    int32_t a = -1, b = -1;
    int64_t thawed = 0;
    ok(kvq_sequence_add(harness_.cache, &a));
    step({{a}, {150}, {}, 150});
    ok(kvq_sequence_fork(harness_.cache, a, &b));
    step({{b, a}, {40, 1}, {}, 40});
    ok(kvq_sequence_crop(harness_.cache, b, 60, &thawed));
    for (int i = 0; i < 3; ++i)
      step({{a, b}, {1, 1}, {}, 1});
    step({{b, a}, {30, 5}, {}, 30, true});
    for (int i = 0; i < 2; ++i) // they see all that came before; the last one begins no page
      step({{a, b}, {1, 1}, {}, 1});
    if (ran_.failure.empty())
      for (int32_t sequence : {a, b}) {
        const std::vector<uint8_t> stored = harness_.snapshot(sequence);
        ran_.bytes.insert(ran_.bytes.end(), stored.begin(), stored.end());
      }
    return ran_;
  }

private:
  void ok(kvq_error *error) {
    if (ran_.failure.empty() && error)
      ran_.failure = kvq_error_message(error);
    kvq_error_free(error);
  }
  void step(const StepData &data) {
    if (!ran_.failure.empty())
      return;
    kvq_step *step = nullptr;
    ok(harness_.plan(data, &step));
    for (int layer = 0; ran_.failure.empty() && layer < harness_.setup.layers; ++layer) {
      Harness::LayerData values = harness_.random(data);
      ok(harness_.forward(step, layer, values));
      for (const Rows *rows : {&values.out, &values.lse})
        ran_.bytes.insert(ran_.bytes.end(), rows->memory.data(), rows->memory.data() + rows->memory.size());
    }
    if (ran_.failure.empty())
      ok(kvq_commit_step(step));
  }

  Harness harness_;
  Ran ran_;
};

TEST_P(OnFake, AnswersAreThoseOfTheReferenceBitForBit) {
  for (kvq_dtype dtype : {KVQ_F32, KVQ_F16}) {
    CacheSetup setup = GetParam();
    setup.dtype = dtype;
    const Ran expected = Program(on("ref", setup)).run(), given = Program(on("ptxsim", setup)).run();
    EXPECT_EQ(given.failure, "");
    EXPECT_EQ(given.bytes.size(), expected.bytes.size());
    EXPECT_TRUE(given == expected);
  }
}

// Whether the program gives other bytes, fails or crashes, in a process of its own: what kernels read may be anything.
bool goesWrong(const CacheSetup &setup, const Ran &expected) {
  fflush(nullptr); // or the child prints it once more
  const pid_t child = fork();
  if (child == 0) {
    (void)!freopen("/dev/null", "w", stdout);
    (void)!freopen("/dev/null", "w", stderr);
    const bool same = Program(setup).run() == expected;
    _exit(same ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

// The test above can fail: each copy to the device matters, those of the cache as those of the caller's tensors.
TEST_P(OnFake, AnUploadThatIsLostShows) {
  const CacheSetup setup = on("ptxsim", GetParam(), 1);
  const Ran expected = Program(setup).run();
  const int64_t changes = fake().changes;
  ASSERT_GT(changes, 20);
  EXPECT_FALSE(goesWrong(setup, expected));
  std::string unseen;
  for (int64_t lost = 0; lost < changes; ++lost) {
    fake().changesLeft = lost;
    if (!goesWrong(setup, expected))
      unseen += " " + std::to_string(lost);
  }
  EXPECT_EQ(unseen, "") << "of " << changes;
}

// Nor does a host that reads or writes the device's memory go unnoticed.
TEST_F(OnFakeOnce, AHostThatTouchesTheMemoryEnds) {
  Harness harness(on("ptxsim", small(kBlockText, kBlock)));
  harness.extend(harness.add(), 10);
  EXPECT_EXIT({ harness.address()[64] = 1; }, ::testing::ExitedWithCode(1), "the host touched the fake accelerator");
  EXPECT_EXIT({ std::exit(harness.address()[64] ? 3 : 4); }, ::testing::ExitedWithCode(1), "the host touched");
}

// Each head of a query is merged by itself, with sink logits and without; the model has checked the answers.
TEST_F(OnFakeOnce, MergesAreCutByHeads) {
  for (bool sinks : {false, true}) {
    CacheSetup setup = on("ptxsim", small(kBlockText, kBlock));
    setup.sinks = sinks;
    Harness harness(setup);
    const int32_t a = harness.add(), b = harness.add();
    harness.step({{a, b}, {40, 3}, {}, 40});
    harness.step({{a, b}, {1, 2}, {}, 2});
    EXPECT_EQ(fake().merges, 3 * 4);
  }
}

// ---- streams ----

// Steps on a stream of the caller's, which nobody waits for, and between them what the cache does on the device's own:
// the stored bytes and the last output.
std::vector<uint8_t> streamed(const CacheSetup &setup) {
  Harness harness(setup);
  void *stream = nullptr;
  KVQ_EXPECT_OK(kvq_stream_create(harness.context, &stream));
  const int32_t a = harness.add();
  harness.extend(a, 70);
  std::vector<uint8_t> result;
  for (int32_t sequence : {a, harness.fork(a)}) {
    const StepData data = {{sequence}, {60}, {}, 60}; // its last chunk quantizes, by each rule
    const Harness::LayerData values = harness.random(data);
    kvq_step *step = nullptr;
    KVQ_EXPECT_OK(harness.plan(data, &step));
    size_t bytes = 0;
    KVQ_EXPECT_OK(kvq_workspace_bytes(step, &bytes));
    const Memory workspace(bytes);
    const Shown q(harness.context, values.q.memory, true), k(harness.context, values.k.memory, true),
        v(harness.context, values.v.memory, true), scratch(harness.context, workspace, true);
    Shown out(harness.context, values.out.memory, true);
    const kvq_tensor qView = q.of(values.q.tensor()), kView = k.of(values.k.tensor()), vView = v.of(values.v.tensor()),
                     outView = out.of(values.out.tensor());
    KVQ_EXPECT_OK(
        kvq_forward(step, 0, &qView, &kView, &vView, 0.25f, scratch.data(), bytes, stream, &outView, nullptr));
    KVQ_EXPECT_OK(kvq_commit_step(step));
    const std::vector<uint8_t> stored = harness.snapshot(sequence);
    KVQ_EXPECT_OK(kvq_stream_synchronize(harness.context, stream));
    out.fetch();
    result.insert(result.end(), stored.begin(), stored.end());
    result.insert(result.end(), values.out.memory.data(), values.out.memory.data() + values.out.memory.size());
  }
  kvq_stream_destroy(harness.context, stream);
  return result;
}

TEST_P(OnFake, ACallersStreamAndTheDevicesOwnComeBehindEachOther) {
  // On one stream everything is in order by itself.
  Harness plain(onFake(1));
  const int32_t a = plain.add();
  plain.extend(a, 70);
  std::vector<uint8_t> expected;
  for (int32_t sequence : {a, plain.fork(a)}) {
    const StepData data = {{sequence}, {60}, {}, 60}; // its last chunk quantizes, by each rule
    Harness::LayerData values = plain.random(data);
    kvq_step *step = nullptr;
    KVQ_ASSERT_OK(plain.plan(data, &step));
    KVQ_ASSERT_OK(plain.forward(step, 0, values));
    KVQ_ASSERT_OK(kvq_commit_step(step));
    const std::vector<uint8_t> stored = plain.snapshot(sequence);
    expected.insert(expected.end(), stored.begin(), stored.end());
    expected.insert(expected.end(), values.out.memory.data(), values.out.memory.data() + values.out.memory.size());
  }
  EXPECT_TRUE(streamed(onFake(1)) == expected);
  fake().forgetsWaits = true;
  EXPECT_FALSE(streamed(onFake(1)) == expected) << "the test would not see a wait that is missing";
}

// Seen from another stream, which knows nothing of the cache's work.
TEST_P(OnFake, CallsThatTakeNoStreamAreDoneWhenTheyReturn) {
  Harness harness(onFake(1));
  void *stream = nullptr;
  KVQ_ASSERT_OK(kvq_stream_create(harness.context, &stream));
  const int32_t a = harness.add();
  harness.extend(a, 100);
  const std::vector<float> expected = harness.readAll(a);
  // What restore was given may go.
  std::vector<uint8_t> stored = harness.snapshot(a);
  int32_t b = -1;
  KVQ_ASSERT_OK(kvq_sequence_restore(harness.cache, stored.data(), stored.size(), &b));
  std::fill(stored.begin(), stored.end(), 0);
  EXPECT_EQ(harness.readAll(b), expected);
  // What read wrote is there.
  const Rows k(1, 2, 100, 16, KVQ_F32), v(1, 2, 100, 16, KVQ_F32);
  kvq_buffer *read = nullptr;
  const size_t bytes = k.memory.size();
  KVQ_ASSERT_OK(kvq_buffer_create(harness.context, 2 * bytes, &read));
  kvq_tensor kView = k.heads3(), vView = v.heads3();
  kView.device = vView.device = KVQ_CUDA;
  kView.data = reinterpret_cast<void *>(kvq_buffer_address(read));
  vView.data = reinterpret_cast<void *>(kvq_buffer_address(read) + bytes);
  KVQ_EXPECT_OK(kvq_read(harness.cache, a, 0, &kView, &vView));
  KVQ_EXPECT_OK(kvq_buffer_download(read, 0, k.memory.data(), bytes, stream));
  KVQ_EXPECT_OK(kvq_buffer_download(read, bytes, v.memory.data(), bytes, stream));
  EXPECT_EQ(std::memcmp(k.memory.data(), expected.data(), bytes), 0);
  EXPECT_EQ(std::memcmp(v.memory.data(), expected.data() + bytes / sizeof(float), bytes), 0);
  kvq_buffer_destroy(read);
  // The memory from which a cache grew may go.
  const std::unique_ptr<Shown> old = std::move(harness.shown);
  harness.setup.blocks = 20;
  const kvq_cache_config larger = harness.config();
  size_t needed = 0;
  KVQ_ASSERT_OK(kvq_cache_memory_bytes(&larger, &needed));
  auto grown = std::make_unique<Memory>(needed);
  harness.shown = std::make_unique<Shown>(harness.context, *grown, true);
  KVQ_ASSERT_OK(kvq_cache_grow(harness.cache, 20, 4, harness.address(), needed));
  old->clear(stream);
  EXPECT_EQ(harness.readAll(a), expected);
  harness.memory.swap(grown);
  old->forget();
  kvq_stream_destroy(harness.context, stream);
}

TEST_P(OnFake, DestroyingACacheWaitsForItsWork) {
  Harness harness(onFake());
  const int32_t a = harness.add();
  harness.extend(a, 100);
  harness.fork(a);
  EXPECT_GT(fake().pending, 0);
  kvq_cache_destroy(std::exchange(harness.cache, nullptr));
  EXPECT_EQ(fake().pending, 0);
}

// ---- what a step sends ----

// Layers share their lists: a decode step sends what it has in one copy, and the entries of block tables when a page
// begins.
TEST_P(OnFake, AStepSendsItsListsOnce) {
  Harness harness(onFake(6));
  const int32_t a = harness.add(), b = harness.add();
  harness.step({{a, b}, {100, 70}, {}, 100});
  const StepData data = {{a, b}, {1, 1}, {}, 1};
  Harness::LayerData values = harness.random(data);
  for (int i = 0; i < 40; ++i) {
    kvq_step *step = nullptr;
    fake().uploads = 0;
    KVQ_ASSERT_OK(harness.plan(data, &step));
    EXPECT_LE(fake().uploads, 2); // an entry of each table
    int64_t lists = 0;
    for (int layer = 0; layer < 6; ++layer) {
      fake().uploads = 0;
      KVQ_ASSERT_OK(harness.forward(step, layer, values));
      lists += fake().uploads - 6; // the harness sends q, k, v, out, lse and the workspace
    }
    EXPECT_LE(lists, 2); // the append's before it is waited for, then the offsets of q and out
    KVQ_ASSERT_OK(kvq_commit_step(step));
  }
}

// ---- failures ----

TEST_P(OnFake, MemoryThatEndsAnywhereLeavesTheCacheAsItWas) {
  const CacheSetup setup = onFake();
  const Ran expected = Program(setup).run();
  Harness harness(setup);
  const int32_t a = harness.add();
  harness.extend(a, 150);
  const std::vector<float> before = harness.readAll(a);
  int refused = 0;
  const StepData data = {{a}, {40}, {}, 40};
  const Harness::LayerData values = harness.random(data);
  const Shown k(harness.context, values.k.memory, true), v(harness.context, values.v.memory, true);
  const kvq_tensor kView = k.of(values.k.tensor()), vView = v.of(values.v.tensor());
  for (int64_t left = 0; left < 20; ++left) {
    kvq_step *step = nullptr;
    fake().allocationsLeft = left;
    Outcome outcome = harness.plan(data, &step);
    for (int layer = 0; outcome.code == KVQ_OK && layer < setup.layers; ++layer)
      outcome = kvq_append(step, layer, &kView, &vView);
    fake().allocationsLeft = -1;
    kvq_abort_step(step);
    EXPECT_TRUE(outcome.code == KVQ_OK || outcome.code == KVQ_RESOURCE_EXHAUSTED) << outcome.message;
    refused += outcome.code != KVQ_OK;
    EXPECT_EQ(harness.readAll(a), before) << left;
  }
  // Back to codes: dequantizing takes memory of the device.
  for (int64_t left = 0; left < 4; ++left) {
    int64_t thawed = 0;
    fake().allocationsLeft = left;
    const Outcome outcome(kvq_sequence_crop(harness.cache, a, 50, &thawed));
    fake().allocationsLeft = -1;
    if (outcome.code == KVQ_OK)
      break;
    EXPECT_EQ(outcome.code, KVQ_RESOURCE_EXHAUSTED) << outcome.message;
    ++refused;
    EXPECT_EQ(harness.readAll(a), before) << left;
  }
  EXPECT_GE(refused, 2);
  EXPECT_TRUE(Program(setup).run() == expected);
}

TEST_F(OnFakeOnce, ACacheThatFindsNoMemoryLeavesNothing) {
  Harness harness(on("ptxsim", small(kBlockText, kBlock)));
  const int64_t live = fake().live;
  const Memory memory(harness.memory->size());
  {
    const Shown shown(harness.context, memory, true);
    const kvq_cache_config config = harness.config();
    kvq_cache *second = nullptr;
    fake().allocationsLeft = 0;
    KVQ_EXPECT_ERROR(kvq_cache_create(harness.context, &config, shown.data(), memory.size(), &second),
                     KVQ_RESOURCE_EXHAUSTED, "sink logits");
    EXPECT_EQ(second, nullptr);
    fake().allocationsLeft = -1;
  }
  EXPECT_EQ(fake().live, live);
}

// After a failure the device answers nothing else, and everything can still be destroyed.
TEST_P(OnFake, AKernelThatFailsIsTheNextCallsError) {
  for (int64_t launch = 0; launch < 6; ++launch) {
    Harness harness(onFake());
    const int32_t a = harness.add();
    harness.extend(a, 100);
    const StepData data = {{a}, {20}, {}, 20};
    Harness::LayerData values = harness.random(data);
    const Shown k(harness.context, values.k.memory, true), v(harness.context, values.v.memory, true);
    const kvq_tensor kView = k.of(values.k.tensor()), vView = v.of(values.v.tensor());
    kvq_step *step = nullptr;
    KVQ_ASSERT_OK(harness.plan(data, &step));
    fake().launchesLeft = launch;
    Outcome outcome(nullptr);
    for (int layer = 0; outcome.code == KVQ_OK && layer < 2; ++layer)
      outcome = kvq_append(step, layer, &kView, &vView);
    if (outcome.code == KVQ_OK) // it was the last that was handed in
      outcome = kvq_stream_synchronize(harness.context, nullptr);
    if (outcome.code == KVQ_OK)
      break; // so many launches there are not
    EXPECT_NE(outcome.message.find("a kernel failed while it ran"), std::string::npos) << outcome.message;
    kvq_abort_step(step);
    fake().launchesLeft = -1;
    kvq_step *next = nullptr;
    int32_t id = -1;
    std::vector<uint8_t> bytes(1 << 20);
    KVQ_EXPECT_ERROR(harness.plan(data, &next), KVQ_INVALID_ARGUMENT, "a kernel failed");
    KVQ_EXPECT_ERROR(kvq_sequence_snapshot(harness.cache, a, bytes.data(), bytes.size()), KVQ_INVALID_ARGUMENT,
                     "a kernel failed");
    EXPECT_EQ(harness.length(a), 100);
    const Outcome added(kvq_sequence_add(harness.cache, &id));
    EXPECT_NE(added.code, KVQ_OK);
    harness.forget();
  }
}

// ---- tensors, memory, profiles ----

TEST_F(OnFakeOnce, WhatLiesElsewhereIsRefusedInOneSentence) {
  Harness harness(on("ptxsim", small(kBlockText, kBlock), 1));
  EXPECT_EQ(kvq_context_memory(harness.context), KVQ_CUDA);
  EXPECT_EQ(kvq_context_memory(Harness(on("ref", small(kBlockText, kBlock), 1)).context), KVQ_CPU);
  const StepData data = {{harness.add()}, {3}, {}, 3};
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(harness.plan(data, &step));
  Harness::LayerData values = harness.random(data);
  const Shown k(harness.context, values.k.memory, true), v(harness.context, values.v.memory, true);
  const kvq_tensor kView = k.of(values.k.tensor()), vView = v.of(values.v.tensor()), onHost = values.k.tensor();
  KVQ_EXPECT_ERROR(kvq_append(step, 0, &onHost, &vView), KVQ_UNSUPPORTED,
                   "k lies in the host's memory, which kernels of this context's device do not see: copy it into a "
                   "buffer of kvq_buffer_create");
  KVQ_EXPECT_OK(kvq_append(step, 0, &kView, &vView));
  // An address that the device does not know is the caller's mistake, and the cache goes on.
  Rows q(1, 4, 3, 16, KVQ_F32), out(1, 4, 3, 16, KVQ_F32);
  kvq_abort_step(step);
  const int64_t tokens = harness.length(data.sequences[0]);
  EXPECT_EQ(tokens, 0);
  harness.step(data);
  kvq_tensor wrong = values.k.heads3(), right = k.of(values.k.heads3());
  wrong.device = KVQ_CUDA;
  KVQ_EXPECT_ERROR(kvq_read(harness.cache, data.sequences[0], 0, &wrong, &right), KVQ_INVALID_ARGUMENT,
                   "not in one allocation");
  harness.step({{data.sequences[0]}, {2}, {}, 2});
  harness.checkRead(data.sequences[0]);

  const Memory memory(harness.memory->size());
  const kvq_cache_config config = harness.config();
  kvq_cache *cache = nullptr;
  KVQ_EXPECT_ERROR(kvq_cache_create(harness.context, &config, memory.data(), memory.size(), &cache),
                   KVQ_INVALID_ARGUMENT, "is not in the memory of the context's device");
}

TEST_F(OnFakeOnce, PagesAreLaidOutAsTheDeviceWantsThem) {
  const CacheSetup setup = on("ptxsim", small(kBlockText, kBlock));
  Harness vnni(setup);
  const int32_t a = vnni.add();
  vnni.extend(a, 150);
  fake().profile = kvq::Profile::Kivi;
  Harness kivi(setup);
  const int32_t b = kivi.add();
  kivi.extend(b, 148);
  kivi.checkRead(b);
  std::string names;
  kvq_context_kernels(
      kivi.context,
      [](void *all, const kvq_kernel_info *info) {
        *static_cast<std::string *>(all) += std::string(info->name) + "\n";
      },
      &names);
  EXPECT_NE(names.find(":kivi:"), std::string::npos);
  EXPECT_EQ(names.find(":vnni:"), std::string::npos) << names;
  EXPECT_NE(names.find(":rows8:"), std::string::npos) << names; // 4 tokens of two heads are left
  EXPECT_NE(names.find(":rows16:"), std::string::npos) << names;
  // snapshot_c3: pages of another layout are converted, on the device.
  const std::vector<uint8_t> snapshot = vnni.snapshot(a);
  const int32_t c = kivi.restore(snapshot, a, &vnni);
  kivi.checkRead(c);
  kivi.extend(c, 3);
  KVQ_EXPECT_OK(kvq_sequence_remove(kivi.cache, c));
  kivi.restore(kivi.snapshot(b), b);
  // layout_c6: it has no planes for 3 bits.
  kvq_cache_config config = kivi.config();
  config.format = "k3c32-v3t16/w32,block";
  kvq_cache *none = nullptr;
  KVQ_EXPECT_ERROR(kvq_query_support(kivi.context, &config), KVQ_INVALID_ARGUMENT, "width 3");
  KVQ_EXPECT_ERROR(kvq_cache_create(kivi.context, &config, kivi.address(), kivi.memory->size(), &none),
                   KVQ_INVALID_ARGUMENT, "width 3");
}

TEST_F(OnFakeOnce, MergingGivesWhatItGivesOnAHost) {
  std::vector<uint8_t> results[2];
  for (bool onDevice : {false, true}) {
    kvq_context_options options{};
    options.struct_size = sizeof(options);
    options.device = onDevice ? "ptxsim" : "ref";
    kvq_context *context = nullptr;
    KVQ_ASSERT_OK(kvq_context_create(&options, &context));
    Rows o(3, 5, 2, 16, KVQ_F32), lse(1, 3, 5, 2, KVQ_F32), out(1, 5, 2, 16, KVQ_F16), outLse(1, 1, 5, 4, KVQ_F32);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (Rows *rows : {&o, &lse})
      for (int64_t i = 0; i < int64_t(rows->memory.size()) / 4; ++i)
        rows->set(i, normal(random));
    {
      const Shown oShown(context, o.memory, onDevice), lseIn(context, lse.memory, onDevice);
      Shown outShown(context, out.memory, onDevice), lseOut(context, outLse.memory, onDevice);
      kvq_tensor lseView = lseIn.of(lse.heads3()), lseOutView = lseOut.of(outLse.heads3());
      lseOutView.ndim = 2;
      lseOutView.shape[0] = 5, lseOutView.shape[1] = 2;
      lseOutView.strides[0] = 4, lseOutView.strides[1] = 2; // with a hole between heads
      const kvq_tensor oView = oShown.of(o.tensor()), outView = outShown.of(out.heads3());
      KVQ_EXPECT_OK(kvq_merge(context, &oView, &lseView, nullptr, &outView, &lseOutView));
      outShown.fetch();
      lseOut.fetch();
    }
    kvq_context_destroy(context);
    for (const Rows *rows : {&out, &outLse})
      results[onDevice].insert(results[onDevice].end(), rows->memory.data(), rows->memory.data() + rows->memory.size());
  }
  EXPECT_EQ(results[0], results[1]);
}

} // namespace
