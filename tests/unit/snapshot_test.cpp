// SPDX-License-Identifier: Apache-2.0
//
// Sequences as bytes: docs/format-spec.md snapshot_c1, snapshot_c2; the parts are those that runtime/cache/snapshot.cpp
// lists. The checksum is worked out with the runtime's own SHA-256, which format_test.cpp and store_test.cpp cover.
#include "runtime/format/sha256.h"
#include "tests/unit/cache_harness.h"

using namespace kvq_test;

namespace {

using Bytes = std::vector<uint8_t>;
constexpr size_t kHeader = 8 + 8 + 32;

enum Number { kLength, kFrontierK, kFrontierV, kRingK, kRingV, kFirstPage, kBlocks };

size_t numbersAt(const Bytes &data) {
  uint32_t text = 0;
  std::memcpy(&text, data.data() + kHeader, 4);
  return kHeader + 4 + text;
}
int64_t number(const Bytes &data, Number which) {
  int64_t value = 0;
  std::memcpy(&value, data.data() + numbersAt(data) + 8 * which, 8);
  return value;
}
// With a length and a checksum that fit what follows.
Bytes sealed(Bytes data) {
  const uint64_t payload = data.size() - kHeader;
  std::memcpy(data.data() + 8, &payload, 8);
  const kvq::Digest digest =
      kvq::sha256({reinterpret_cast<const char *>(data.data()) + kHeader, static_cast<size_t>(payload)});
  std::memcpy(data.data() + 16, digest.data(), digest.size());
  return data;
}
Bytes withNumber(Bytes data, Number which, int64_t value) {
  std::memcpy(data.data() + numbersAt(data) + 8 * which, &value, 8);
  return sealed(std::move(data));
}

// The restore is refused, and nothing of the cache changes.
void refused(Harness &harness, const Bytes &data, kvq_code code, const std::string &part) {
  const kvq_cache_report was = harness.report();
  int32_t id = -1;
  KVQ_EXPECT_ERROR(kvq_sequence_restore(harness.cache, data.data(), data.size(), &id), code, part);
  const kvq_cache_report now = harness.report();
  EXPECT_EQ(id, -1);
  EXPECT_EQ(std::memcmp(&was, &now, sizeof(was)), 0);
}

class Snapshot : public ::testing::TestWithParam<CacheSetup> {
protected:
  CacheSetup setup() const {
    CacheSetup setup = GetParam();
    setup.layers = 2, setup.kvHeads = 2, setup.pageTokens = 32;
    return setup;
  }
};
INSTANTIATE_TEST_SUITE_P(Rules, Snapshot, ::testing::ValuesIn(oneOfEachRule()), ruleName);

// snapshot_c1: the same state bit for bit, here and in another cache, whole and after a cut, and it goes on the same.
TEST_P(Snapshot, RoundTripsBitForBit) {
  for (int cut : {0, 20, 110}) {
    Harness harness(setup()), other(setup());
    const int32_t a = harness.add();
    harness.extend(a, 170);
    int64_t thawed = 0;
    KVQ_ASSERT_OK(kvq_sequence_crop(harness.cache, a, 170 - cut, &thawed));
    for (ModelHead &head : harness.model[a])
      head.crop(harness.setup.model, 170 - cut, 0, [](float value) { return value; });
    harness.extend(a, 3);
    const Bytes data = harness.snapshot(a);
    EXPECT_EQ(std::memcmp(data.data(), "KVQSNAP\1", 8), 0);
    EXPECT_EQ(sealed(data), data);

    const int32_t b = harness.restore(data, a);
    EXPECT_EQ(harness.snapshot(b), data);
    EXPECT_EQ(harness.readAll(b), harness.readAll(a));
    other.add();
    int32_t c = -1;
    KVQ_ASSERT_OK(kvq_sequence_restore(other.cache, data.data(), data.size(), &c));
    ASSERT_EQ(c, 1);
    other.model.resize(2);
    other.model[c] = harness.model[a];
    EXPECT_EQ(other.snapshot(c), data);
    other.checkRead(c);

    const std::vector<float> first = harness.answers({{a}, {1}, {}, 1}, 5),
                             next = harness.answers({{a}, {80}, {}, 80}, 6);
    for (auto &[in, id] : {std::pair<Harness &, int32_t>(harness, b), std::pair<Harness &, int32_t>(other, c)}) {
      EXPECT_EQ(in.answers({{id}, {1}, {}, 1}, 5), first);
      EXPECT_EQ(in.answers({{id}, {80}, {}, 80}, 6), next);
      EXPECT_EQ(in.snapshot(id), harness.snapshot(a));
    }
  }
}

TEST_P(Snapshot, OfAnEmptyOrShortSequence) {
  Harness harness(setup());
  const int32_t a = harness.add();
  for (int tokens : {0, 1}) {
    harness.extend(a, tokens);
    const int32_t b = harness.restore(harness.snapshot(a), a);
    harness.extend(b, 100);
    harness.checkRead(b);
    harness.remove(b);
  }
}

// snapshot_c2: each byte of header, text and numbers, and some of what follows.
TEST_P(Snapshot, EveryChangedByteIsRefused) {
  Harness harness(setup());
  const int32_t a = harness.add();
  harness.extend(a, 120);
  const Bytes data = harness.snapshot(a);
  const size_t dense = numbersAt(data) + 7 * 8;
  for (size_t at = 0; at < data.size(); at += at < dense ? 1 : 997) {
    Bytes changed = data;
    changed[at] ^= 0x20;
    const char *part = at < 7    ? "does not begin with KVQSNAP"
                       : at == 7 ? "has version 33"
                       : at < 16 ? "bytes behind its"
                                 : "its checksum";
    refused(harness, changed, KVQ_CORRUPT, part);
  }
  EXPECT_EQ(harness.snapshot(harness.restore(data, a)), data);
}

TEST_P(Snapshot, EveryTruncationIsRefused) {
  Harness harness(setup());
  const int32_t a = harness.add();
  harness.extend(a, 120);
  const Bytes data = harness.snapshot(a);
  std::vector<size_t> lengths = {data.size() - 1, data.size() - 64, data.size() / 2};
  for (size_t length = 0; length < numbersAt(data) + 7 * 8 + 2; ++length)
    lengths.push_back(length);
  for (size_t length : lengths) {
    Bytes shorter(data.begin(), data.begin() + length);
    shorter.reserve(1); // restore takes no NULL
    refused(harness, shorter, KVQ_CORRUPT, length < kHeader ? "KVQSNAP and a header" : "bytes behind its header");
    // The same with a length and a checksum that fit.
    if (length > kHeader)
      refused(harness, sealed(shorter), KVQ_CORRUPT,
              length < numbersAt(data) + 7 * 8 ? "shorter than its own header says" : "contradict each other");
  }
  Bytes longer = data;
  longer.push_back(0);
  refused(harness, longer, KVQ_CORRUPT, "bytes behind its header");
  refused(harness, sealed(longer), KVQ_CORRUPT, "contradict each other");
}

// Numbers that no cache writes, under a checksum that fits. The sequence has 130 tokens.
TEST_P(Snapshot, NumbersThatContradictEachOtherAreRefused) {
  Harness harness(setup());
  const int32_t a = harness.add();
  harness.extend(a, 130);
  const Bytes data = harness.snapshot(a);
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max(), kLeast = std::numeric_limits<int64_t>::min();
  for (Number which : {kLength, kFrontierK, kFrontierV, kRingK, kRingV, kFirstPage, kBlocks})
    for (int64_t value : {int64_t(-1), int64_t(1) << 31, int64_t(1) << 58, kHuge, kLeast}) {
      SCOPED_TRACE(std::to_string(which) + " becomes " + std::to_string(value));
      refused(harness, withNumber(data, which, value), KVQ_CORRUPT, "contradict each other");
    }
  const auto contradiction = [&](Number which, int64_t value) {
    SCOPED_TRACE(std::to_string(which) + " becomes " + std::to_string(value));
    refused(harness, withNumber(data, which, value), KVQ_CORRUPT, "contradict each other");
  };
  const int64_t frontier = number(data, kFrontierK);
  ASSERT_GT(frontier, 32);
  contradiction(kLength, frontier - 1);     // shorter than what is quantized
  contradiction(kLength, 130 + 300);        // the ring would be longer than it is
  contradiction(kFrontierK, frontier - 1);  // within a group
  contradiction(kFrontierK, frontier - 32); // behind the rule
  contradiction(kFrontierV, number(data, kFrontierV) - 32);
  contradiction(kFrontierV, frontier + 1); // ahead of K
  contradiction(kRingK, number(data, kFrontierK) + 1);
  contradiction(kRingV, number(data, kFrontierV) + 1);
  contradiction(kFirstPage, 1); // nothing was dropped: there is no attention window
  contradiction(kBlocks, number(data, kBlocks) - 1);
  contradiction(kBlocks, number(data, kBlocks) + 1);
  // A first page and a number of blocks that fit each other, with one block less in each of the two layers.
  const int64_t blockBytes = harness.setup.kvHeads * harness.pageBytes();
  Bytes dropped = withNumber(data, kFirstPage, 1);
  const auto first = dropped.begin() + numbersAt(data) + 7 * 8;
  dropped.erase(first, first + 2 * blockBytes);
  refused(harness, withNumber(dropped, kBlocks, number(data, kBlocks) - 1), KVQ_CORRUPT, "contradict each other");
}

// Kernels quantize from the frontier on, by whole groups.
TEST_P(Snapshot, AFrontierWithinAGroupIsRefused) {
  CacheSetup large = setup();
  large.pageTokens = 256; // so that every frontier here has one block
  Harness harness(large);
  const int32_t a = harness.add();
  harness.extend(a, 150);
  const Bytes data = harness.snapshot(a);
  const bool together = large.model.rule != ModelRule::Sliding; // there V need not be where K is
  for (int64_t beyond : {1, 4, 16, 20}) {
    Bytes moved = withNumber(data, kFrontierK, number(data, kFrontierK) + beyond);
    if (together)
      moved = withNumber(moved, kFrontierV, number(data, kFrontierV) + beyond);
    refused(harness, moved, KVQ_CORRUPT, "contradict each other");
  }
  if (large.model.rule != ModelRule::Block)
    return;
  // A whole group is what taking tokens back may leave: 128 where the rule has 96.
  const Bytes whole = withNumber(withNumber(data, kFrontierK, 128), kFrontierV, 128);
  int32_t id = -1;
  KVQ_EXPECT_OK(kvq_sequence_restore(harness.cache, whole.data(), whole.size(), &id));
}

// Under an attention window: a first page that the next query's window reaches behind, and one that should be gone.
TEST(SnapshotOf, AWindowHasTheFirstPageThatItNeeds) {
  CacheSetup setup = small(kBlockText, kBlock);
  setup.pageTokens = 32, setup.attentionWindow = 60;
  Harness harness(setup);
  const int32_t a = harness.add();
  harness.extend(a, 300); // 300 - 32 - 60 = 208: pages 0 to 5 are gone; the next query sees 241 and what follows
  const Bytes data = harness.snapshot(a);
  ASSERT_EQ(number(data, kFirstPage), 6);
  ASSERT_EQ(number(data, kBlocks), 2); // frontier 256
  const int64_t blockBytes = harness.setup.kvHeads * harness.pageBytes();
  const auto movedTo = [&](int64_t page) { // with as many blocks as that leaves
    Bytes moved = data;
    const auto first = moved.begin() + numbersAt(moved) + 7 * 8;
    if (page > 6)
      moved.erase(first, first + (page - 6) * blockBytes);
    else
      moved.insert(first, (6 - page) * blockBytes, 0);
    return withNumber(withNumber(moved, kFirstPage, page), kBlocks, 8 - page);
  };
  EXPECT_EQ(movedTo(6), data);
  refused(harness, movedTo(5), KVQ_CORRUPT, "contradict each other");
  refused(harness, movedTo(8), KVQ_CORRUPT, "contradict each other");
  int32_t id = -1; // page 7 is 224 to 255: the window begins in it
  const Bytes later = movedTo(7);
  KVQ_EXPECT_OK(kvq_sequence_restore(harness.cache, later.data(), later.size(), &id));
  harness.model.resize(2);
  harness.model[1] = harness.model[0];
  harness.extend(id, 1);
  harness.checkRead(id);
}

// snapshot_c1: into a cache that differs in any one thing it does not go.
TEST(SnapshotOf, AnotherCacheIsRefused) {
  const auto base = [] {
    CacheSetup setup = small(kBlockText, kBlock);
    setup.layers = 2, setup.kvHeads = 2, setup.qHeads = 2, setup.pageTokens = 64;
    return setup;
  };
  Harness harness(base());
  const int32_t a = harness.add();
  harness.extend(a, 120);
  const Bytes data = harness.snapshot(a);
  const auto differs = [&](auto change, const char *part) {
    CacheSetup setup = base();
    change(setup);
    Harness other(setup);
    refused(other, data, KVQ_INVALID_ARGUMENT,
            "the snapshot is for a cache \"k4c32-v4t16/w32,block layers=2 kv_heads=2 dk=16 dv=16 type=f32 "
            "page_tokens=64 attention_window=0\" and not for");
    refused(other, data, KVQ_INVALID_ARGUMENT, part);
  };
  differs([](CacheSetup &s) { s.text = "k4c32-v4t16/w64,block"; }, "w64");
  differs([](CacheSetup &s) { s.text = "k4c32-v4t16/w32,keep1,block"; }, "keep1");
  differs([](CacheSetup &s) { s.text = "k4c32-v4t16/w32,flush"; }, "flush");
  differs([](CacheSetup &s) { s.text = "k4c32-v2t16/w32,block"; }, "v2t16");
  differs([](CacheSetup &s) { s.layers = 1; }, "layers=1");
  differs([](CacheSetup &s) { s.kvHeads = 1; }, "kv_heads=1");
  differs([](CacheSetup &s) { s.dk = 32; }, "dk=32");
  differs([](CacheSetup &s) { s.dv = 32; }, "dv=32");
  differs([](CacheSetup &s) { s.dtype = KVQ_F16; }, "type=f16");
  differs([](CacheSetup &s) { s.pageTokens = 32; }, "page_tokens=32");
  differs([](CacheSetup &s) { s.attentionWindow = 500; }, "attention_window=500");
  // What the packed data does not depend on may differ: query heads, capacity, score cap.
  CacheSetup larger = base();
  larger.qHeads = 6, larger.blocks = 3, larger.sequences = 1, larger.scoreCap = 2;
  Harness other(larger);
  int32_t id = -1;
  KVQ_EXPECT_OK(kvq_sequence_restore(other.cache, data.data(), data.size(), &id));
  EXPECT_EQ(other.snapshot(id), data);
  // text_c9: `h` is the number that it stands for.
  CacheSetup whole = base();
  whole.text = "k4c32-v4th/w32,block";
  Harness named(whole);
  KVQ_EXPECT_OK(kvq_sequence_restore(named.cache, data.data(), data.size(), &id));
  EXPECT_EQ(named.snapshot(id), data);
}

TEST(SnapshotOf, FullSlotsAndFullPoolsAreRefusedAndChangeNothing) {
  CacheSetup setup = small(kBlockText, kBlock);
  setup.blocks = 3, setup.sequences = 2, setup.pageTokens = 64;
  Harness harness(setup);
  const int32_t a = harness.add();
  harness.extend(a, 150); // 2 blocks
  const Bytes data = harness.snapshot(a);
  refused(harness, data, KVQ_RESOURCE_EXHAUSTED, "the snapshot needs 2 blocks but 1 are free");
  const int32_t b = harness.fork(a);
  refused(harness, data, KVQ_RESOURCE_EXHAUSTED, "all 2 sequences are in use");
  EXPECT_EQ(harness.snapshot(a), data);
  EXPECT_EQ(harness.snapshot(b), data);
  const std::vector<ModelHead> model = harness.model[a];
  harness.remove(b);
  harness.remove(a);
  harness.model.push_back(model);
  const int32_t c = harness.restore(data, static_cast<int32_t>(harness.model.size()) - 1);
  harness.checkRead(c);
  harness.extend(c, 60);
  harness.checkRead(c);
}

TEST(SnapshotOf, ArgumentsAreChecked) {
  Harness harness(small(kBlockText, kBlock));
  const int32_t a = harness.add();
  harness.extend(a, 70);
  Bytes data = harness.snapshot(a);
  const Bytes before = data;
  size_t bytes = 0;
  int32_t id = -1;
  KVQ_EXPECT_ERROR(kvq_sequence_snapshot(harness.cache, a, data.data(), data.size() - 1), KVQ_INVALID_ARGUMENT,
                   "bytes is too small: the snapshot needs " + std::to_string(data.size()));
  KVQ_EXPECT_ERROR(kvq_sequence_snapshot(harness.cache, 3, data.data(), data.size()), KVQ_INVALID_ARGUMENT,
                   "sequence 3 does not exist");
  KVQ_EXPECT_ERROR(kvq_sequence_snapshot(harness.cache, a, nullptr, data.size()), KVQ_INVALID_ARGUMENT, "data is NULL");
  KVQ_EXPECT_ERROR(kvq_sequence_snapshot_bytes(harness.cache, 3, &bytes), KVQ_INVALID_ARGUMENT, "sequence 3");
  KVQ_EXPECT_ERROR(kvq_sequence_snapshot_bytes(harness.cache, a, nullptr), KVQ_INVALID_ARGUMENT, "bytes is NULL");
  KVQ_EXPECT_ERROR(kvq_sequence_restore(harness.cache, nullptr, 9, &id), KVQ_INVALID_ARGUMENT, "data is NULL");
  KVQ_EXPECT_ERROR(kvq_sequence_restore(harness.cache, data.data(), data.size(), nullptr), KVQ_INVALID_ARGUMENT,
                   "sequence is NULL");
  EXPECT_EQ(data, before);
  // Room for more than it needs is fine.
  data.resize(data.size() + 100, 0xee);
  KVQ_EXPECT_OK(kvq_sequence_snapshot(harness.cache, a, data.data(), data.size()));
  EXPECT_TRUE(std::equal(before.begin(), before.end(), data.begin()));
  EXPECT_TRUE(std::all_of(data.end() - 100, data.end(), [](uint8_t byte) { return byte == 0xee; }));
}

} // namespace
