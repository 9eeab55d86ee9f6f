// SPDX-License-Identifier: Apache-2.0
//
// Caches by the layout profile of their pages, on device "ref": where a code lies changes no result, and snapshots go
// between all profiles of a format (docs/format-spec.md snapshot_c3).
#include "runtime/cache/step.h"
#include "runtime/device/cpu/thread_pool.h"
#include "runtime/device/ref/ref_device.h"

#include <gtest/gtest.h>

#include <random>

using namespace kvq;

namespace {

constexpr int kHeadDim = 48, kQHeads = 2;

CacheConfig configOf(Profile profile) {
  CacheConfig config;
  config.format = parseCache("k4c32-v2t16/w32,block").value();
  config.profile = profile;
  config.qHeads = kQHeads;
  config.dk = config.dv = kHeadDim;
  config.pageTokens = 32;
  config.blocks = 8;
  config.sequences = 2;
  return config;
}

struct Owned {
  std::unique_ptr<uint8_t, decltype(&std::free)> memory{nullptr, &std::free};
  std::unique_ptr<Cache> cache;

  explicit Owned(const CacheConfig &config) {
    const auto bytes = static_cast<size_t>(Geometry(config).bytes);
    memory.reset(static_cast<uint8_t *>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
    auto made = Cache::create(makeRefDevice(std::make_unique<ThreadPool>(1)), config, memory.get(), bytes);
    EXPECT_TRUE(made.isOk()) << made.status().message();
    if (made.isOk())
      cache = std::move(made.value());
  }

  // One step of so many tokens of random values; gives what attention answers.
  std::vector<float> step(int sequence, int tokens, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto rows = [&](int heads) {
      std::vector<float> values(size_t(heads) * tokens * kHeadDim);
      for (float &value : values)
        value = normal(random);
      return values;
    };
    const auto tensor = [&](std::vector<float> &values, int heads) {
      return Tensor{values.data(),     ElementType::F32, tokens, int64_t{heads} * tokens * kHeadDim,
                    tokens * kHeadDim, kHeadDim};
    };
    const int kvHeads = cache->config().kvHeads;
    std::vector<float> k = rows(kvHeads), v = rows(kvHeads), q = rows(kQHeads), out(q.size());
    const int32_t id = sequence, count = tokens;
    Step &step = cache->step();
    EXPECT_TRUE(step.plan({1, &id, &count}).isOk());
    std::vector<float> workspace(step.workspaceBytes() / 4 + 1);
    AttendBuffers buffers;
    buffers.workspace = workspace.data();
    buffers.workspaceBytes = step.workspaceBytes();
    for (int layer = 0; layer < cache->config().layers; ++layer) {
      const Status status = step.forward(layer, tensor(q, kQHeads), tensor(k, kvHeads), tensor(v, kvHeads), 0.2f,
                                         buffers, tensor(out, kQHeads));
      EXPECT_TRUE(status.isOk()) << status.message();
      v.swap(k); // layers differ
    }
    EXPECT_TRUE(step.commit().isOk());
    return out;
  }
};

std::vector<uint8_t> snapshotOf(Cache &cache, int sequence) {
  std::vector<uint8_t> data(static_cast<size_t>(cache.snapshotBytes(sequence).value()));
  EXPECT_TRUE(cache.snapshot(sequence, data).isOk());
  return data;
}

} // namespace

TEST(CacheProfile, layout_c3_no_result_depends_on_where_codes_lie) {
  Owned vnni(configOf(Profile::Vnni)), mma(configOf(Profile::Mma));
  const int a = vnni.cache->addSequence().value();
  ASSERT_EQ(mma.cache->addSequence().value(), a);
  unsigned seed = 1;
  for (int tokens : {100, 1, 17, 1}) {
    EXPECT_EQ(vnni.step(a, tokens, seed), mma.step(a, tokens, seed)) << "step " << seed;
    ++seed;
  }
  const auto block = mma.cache->blocks(a).front();
  ASSERT_EQ(vnni.cache->blocks(a).front(), block);
  const int64_t bytes = mma.cache->geometry().pageBytes;
  const auto page = [&](const Owned &owned) {
    return reinterpret_cast<const uint8_t *>(owned.cache->page(0, block, 0));
  };
  EXPECT_FALSE(std::equal(page(mma), page(mma) + bytes, page(vnni)));
}

// The pages are then those that the other cache would have made itself, down to the bytes between their sections: its
// snapshot is the one that it takes of the same tokens, and back in the first cache it is the first one.
TEST(CacheProfile, snapshot_c3_pages_of_another_profile_are_converted) {
  for (Profile from : kAllProfiles)
    for (Profile to : kAllProfiles) {
      SCOPED_TRACE(std::string(toText(from)) + " to " + std::string(toText(to)));
      CacheConfig fromConfig = configOf(from), toConfig = configOf(to);
      fromConfig.layers = toConfig.layers = 2;
      fromConfig.kvHeads = toConfig.kvHeads = 2;
      Owned first(fromConfig), other(toConfig);
      const int a = first.cache->addSequence().value(), b = other.cache->addSequence().value();
      first.step(a, 100, 1);
      other.step(b, 100, 1);
      const std::vector<uint8_t> data = snapshotOf(*first.cache, a), own = snapshotOf(*other.cache, b);
      EXPECT_EQ(data == own, from == to);
      Result<int> there = other.cache->restore(data);
      ASSERT_TRUE(there.isOk()) << there.status().message();
      EXPECT_EQ(snapshotOf(*other.cache, there.value()), own);
      Result<int> back = first.cache->restore(snapshotOf(*other.cache, there.value()));
      ASSERT_TRUE(back.isOk()) << back.status().message();
      EXPECT_EQ(snapshotOf(*first.cache, back.value()), data);
      EXPECT_EQ(other.step(there.value(), 3, 2), first.step(a, 3, 2));
    }
}

TEST(CacheProfile, snapshot_c3_only_the_profile_may_differ) {
  CacheConfig config = configOf(Profile::Vnni);
  Owned mma(configOf(Profile::Mma));
  config.pageTokens = 64;
  Owned vnni(config);
  const int a = mma.cache->addSequence().value();
  mma.step(a, 100, 1);
  const Status refused = vnni.cache->restore(snapshotOf(*mma.cache, a)).status();
  EXPECT_EQ(refused.code(), Code::InvalidArgument);
  EXPECT_EQ(refused.message(),
            "the snapshot is for a cache \"k4c32-v2t16/w32,block layers=1 kv_heads=1 dk=48 dv=48 type=f32 "
            "page_tokens=32 attention_window=0 profile=mma k=[tok.1 ch.1 ch.0 tok.2 ch.2 ch.3 tok.0 tok.3 tok.4] ch:3 "
            "tok:1 v=[ch.3 tok.1 tok.2 tok.0 tok.3 tok.4 ch.0 ch.1 ch.2] ch:3 tok:1\" and not for "
            "\"k4c32-v2t16/w32,block layers=1 kv_heads=1 "
            "dk=48 dv=48 type=f32 page_tokens=64 attention_window=0\": restore it into a cache like the one it was "
            "taken from");
}

TEST(CacheProfile, layout_c6_widths_that_it_has_not_are_refused) {
  CacheConfig config = configOf(Profile::Mma);
  config.format = parseCache("k3c32-v4t16").value();
  EXPECT_EQ(checkConfig(config).message(), "width 3 of 'k3c32-v4t16' is not legal in the profile mma: use 2, 4 or 8 "
                                           "bits, or the profile vnni");
  config.profile = Profile::Vnni;
  EXPECT_TRUE(checkConfig(config).isOk());
}
