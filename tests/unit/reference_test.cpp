// SPDX-License-Identifier: Apache-2.0
//
// The reference kernels by their ABI: what they write, what they leave alone, and attention against a plain sum over
// dense K' and V'. Pages are read back here through Layout::address and groupIndex, not through the reference.
#include "runtime/reference/numerics.h"
#include "runtime/reference/reference.h"

#include <kvq/kernel_abi.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

using namespace kvq;

namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

KernelRequest request(std::string_view text) {
  Result<KernelRequest> parsed = parseKernelRequest(text);
  EXPECT_TRUE(parsed.isOk()) << parsed.status().message();
  return parsed.isOk() ? parsed.value() : KernelRequest();
}

uint64_t word(const void *pointer) { return reinterpret_cast<uint64_t>(pointer); }
uint64_t word(int64_t value) { return static_cast<uint64_t>(value); }
uint64_t word(float value) { return std::bit_cast<uint32_t>(value); }

// Values as a tensor of the type, and back.
std::vector<uint8_t> encoded(const std::vector<float> &values, ElementType type) {
  std::vector<uint8_t> bytes(values.size() * byteSize(type));
  for (size_t i = 0; i < values.size(); ++i)
    if (type == ElementType::F32) {
      std::memcpy(&bytes[4 * i], &values[i], 4);
    } else {
      const uint16_t half = type == ElementType::BF16 ? bf16FromF32(values[i]) : f16FromF32(values[i]);
      std::memcpy(&bytes[2 * i], &half, 2);
    }
  return bytes;
}

std::vector<float> decoded(const std::vector<uint8_t> &bytes, ElementType type) {
  std::vector<float> values(bytes.size() / byteSize(type));
  for (size_t i = 0; i < values.size(); ++i)
    if (type == ElementType::F32) {
      std::memcpy(&values[i], &bytes[4 * i], 4);
    } else {
      uint16_t half;
      std::memcpy(&half, &bytes[2 * i], 2);
      values[i] = type == ElementType::BF16 ? f32FromBf16(half) : f32FromF16(half);
    }
  return values;
}

// One side of one layer: its tail and what is known about its pages.
struct SideData {
  Side side;
  SideFormat format;
  int headDim;
  std::vector<uint8_t> tail; // [slots][heads][rows][D] in the request's type
};

// A layer with `kSlots` tail slots and `kBlocks` blocks, filled with a pattern so that stray writes show.
struct Layer {
  static constexpr int kHeads = 2, kSlots = 2, kBlocks = 4;
  KernelRequest req;
  int64_t cap, rows;
  std::vector<uint8_t> pages;
  SideData k, v;

  Layer(std::string_view text, int64_t cap, uint32_t seed, int64_t keep = 0)
      : req(request(text)), cap(cap), rows(cap + keep) {
    pages.assign(kBlocks * kHeads * pageBytes(), 0xa5);
    std::mt19937 random(seed);
    k = makeSide(Side::K, req.pair.k, req.dk, random);
    v = makeSide(Side::V, req.pair.v, req.dv, random);
  }

  SideData makeSide(Side side, SideFormat format, int headDim, std::mt19937 &random) const {
    std::normal_distribution<float> normal(0.3f, 2.0f);
    std::vector<float> values(kSlots * kHeads * rows * headDim);
    for (float &value : values)
      value = normal(random);
    return {side, format, headDim, encoded(values, req.type)};
  }

  const SideData &at(Side side) const { return side == Side::K ? k : v; }
  int64_t pageBytes() const { return pageMap(req.pair, req.pageTokens, req.dk, req.dv).bytes; }
  // page_c4: one run. Blocks 0 to 3 have these numbers.
  int64_t blockStride() const { return pageBytes(); }
  int64_t headStride() const { return kBlocks * pageBytes(); }
  uint8_t *page(int block, int head) { return pages.data() + block * blockStride() + head * headStride(); }

  float raw(Side side, int slot, int head, int64_t token, int channel) const {
    const SideData &data = at(side);
    const int64_t row = token < 0 ? rows + token : token % cap; // tail_c1
    const int64_t index = ((int64_t{slot} * kHeads + head) * rows + row) * data.headDim + channel;
    std::vector<uint8_t> element(byteSize(req.type));
    std::memcpy(element.data(), &data.tail[index * byteSize(req.type)], element.size());
    return decoded(element, req.type)[0];
  }

  int code(Side side, int block, int head, int row, int channel) {
    const SideData &data = at(side);
    const PageMap map = pageMap(req.pair, req.pageTokens, req.dk, req.dv);
    const uint8_t *section = page(block, head) + (side == Side::K ? map.kCodes : map.vCodes);
    const SectionLayout layout = makeSectionLayout(req.profile, side, data.format.bits, req.pageTokens, data.headDim);
    int code = 0, below = 0;
    for (const Plane &plane : layout.planes) {
      const int64_t bit = plane.map.address(row, channel) * plane.bits;
      code |= (section[bit / 8] >> bit % 8 & ((1 << plane.bits) - 1)) << below;
      section += int64_t{req.pageTokens} * data.headDim * plane.bits / 8;
      below += plane.bits;
    }
    return code;
  }

  std::array<uint16_t, 2> scaleAndMinimum(Side side, int block, int head, int row, int channel) {
    const SideData &data = at(side);
    const PageMap map = pageMap(req.pair, req.pageTokens, req.dk, req.dv);
    const int64_t index = groupIndex(data.format, req.pageTokens, data.headDim, row, channel);
    std::array<uint16_t, 2> halves;
    std::memcpy(&halves[0], page(block, head) + (side == Side::K ? map.kScale : map.vScale) + 2 * index, 2);
    std::memcpy(&halves[1], page(block, head) + (side == Side::K ? map.kMin : map.vMin) + 2 * index, 2);
    return halves;
  }

  float dequantized(Side side, int block, int head, int row, int channel) {
    const auto [scale, minimum] = scaleAndMinimum(side, block, head, row, channel);
    const float product = static_cast<float>(code(side, block, head, row, channel)) * f32FromF16(scale);
    return product + f32FromF16(minimum);
  }

  void quantize(Side side, const kvq_quantize_item &item) {
    req.op = side == Side::K ? KernelOp::QuantizeK : KernelOp::QuantizeV;
    std::vector<kvq_quantize_item> items = {{}, item};
    const std::vector<uint64_t> args = {word(items.data()), word(pages.data()),         word(blockStride()),
                                        word(headStride()), word(at(side).tail.data()), word(cap),
                                        word(rows),         word(int64_t{kHeads})};
    const int64_t program[3] = {1, 0, 0};
    EXPECT_EQ(runReference(req, args.data(), program), 0);
  }
};

// Quantizes rows [first, first + count) and compares every code, scale and minimum of the pool with what must be there.
void checkQuantize(Layer &layer, Side side, int position, int count) {
  const kvq_quantize_item item = {2, 1, 1, position, count, 0};
  Layer before = layer;
  layer.quantize(side, item);
  const SideData &data = layer.at(side);
  const int first = position % layer.req.pageTokens;
  for (int row = 0; row < layer.req.pageTokens; ++row)
    for (int c = 0; c < data.headDim; ++c) {
      if (row < first || row >= first + count) {
        ASSERT_EQ(layer.code(side, 2, 1, row, c), before.code(side, 2, 1, row, c)) << row << " " << c;
        ASSERT_EQ(layer.scaleAndMinimum(side, 2, 1, row, c), before.scaleAndMinimum(side, 2, 1, row, c));
        continue;
      }
      const int g = data.format.group;
      std::vector<float> values(g);
      std::vector<uint8_t> codes(g);
      const int64_t token = position + row - first;
      const int place = data.format.perChannel() ? row % g : c % g;
      for (int i = 0; i < g; ++i)
        values[i] = data.format.perChannel() ? layer.raw(side, 1, 1, token - place + i, c)
                                             : layer.raw(side, 1, 1, token, c - place + i);
      const QuantizedGroup group = quantizeGroup(values, data.format.bits, codes);
      ASSERT_EQ(layer.code(side, 2, 1, row, c), codes[place]) << row << " " << c;
      ASSERT_EQ(layer.scaleAndMinimum(side, 2, 1, row, c), (std::array<uint16_t, 2>{group.scale, group.minimum}));
    }
  // Nothing outside of this side of this page has changed.
  const PageMap map = pageMap(layer.req.pair, layer.req.pageTokens, layer.req.dk, layer.req.dv);
  const int64_t begin = layer.page(2, 1) - layer.pages.data() + (side == Side::K ? 0 : map.vCodes);
  const int64_t end = layer.page(2, 1) - layer.pages.data() + (side == Side::K ? map.vCodes : map.bytes);
  EXPECT_TRUE(std::equal(layer.pages.begin(), layer.pages.begin() + begin, before.pages.begin()));
  EXPECT_TRUE(std::equal(layer.pages.begin() + end, layer.pages.end(), before.pages.begin() + end));
}

} // namespace

TEST(ReferenceQuantize, page_c4_groups_of_one_head_and_nothing_else) {
  for (const char *format : {"k4c32-v4t32", "k2c64-v8c32", "k8t16-v2t16", "k2t80-v4c64", "k3c32-v3t16"})
    for (const char *profile : {"vnni", "kivi", "mma"})
      for (const char *type : {"f32", "bf16", "f16"}) {
        if (!checkProfile(parseProfile(profile).value(), parsePair(format).value()).isOk())
          continue; // layout_c6
        const std::string text = std::string("quantize_k:") + format + ":" + profile + ":p128:dk80:dv64:g1:" + type +
                                 ":rows1:lag0:win0:cap0:exact";
        SCOPED_TRACE(text);
        Layer layer(text, 160, 11, 16);
        for (Side side : {Side::K, Side::V}) {
          const SideFormat side_format = layer.at(side).format;
          const int g = side_format.perChannel() ? side_format.group : 1;
          checkQuantize(layer, side, 128 + 64, g);  // one group
          checkQuantize(layer, side, 256, 64);      // several; wraps around in the ring
          checkQuantize(layer, side, 128 + 64, 64); // over what the first left
        }
        for (Side side : {Side::K, Side::V})
          if (!layer.at(side).format.perChannel())
            checkQuantize(layer, side, 128 + 77, 3); // per token: any position and count (commit_c8)
      }
}

// The words of KIVI's packing: least significant code first, along tokens for K, along channels for V.
TEST(ReferenceQuantize, layout_c2_kivi_words) {
  for (const char *type : {"f32", "bf16", "f16"})
    for (Side side : {Side::K, Side::V}) {
      Layer layer(std::string("quantize_k:k4c32-v4t32:kivi:p32:dk64:dv64:g1:") + type + ":rows1:lag0:win0:cap0:exact",
                  64, 12);
      SideData &data = side == Side::K ? layer.k : layer.v;
      std::vector<float> values(data.tail.size() / byteSize(layer.req.type));
      for (size_t i = 0; i < values.size(); ++i) {
        const size_t along = side == Side::K ? i / 64 : i; // token for K, channel for V
        values[i] = static_cast<float>(along % 16);
      }
      data.tail = encoded(values, layer.req.type);
      layer.quantize(side, {0, 0, 0, 0, 32, 0});
      const PageMap map = pageMap(layer.req.pair, 32, 64, 64);
      uint32_t words[2];
      for (int line = 0; line < (side == Side::K ? 64 : 32); ++line) {
        const int64_t words_a_line = side == Side::K ? 4 : 8;
        std::memcpy(words, layer.page(0, 0) + (side == Side::K ? map.kCodes : map.vCodes) + 4 * words_a_line * line, 8);
        EXPECT_EQ(words[0], 0x76543210u);
        EXPECT_EQ(words[1], 0xfedcba98u);
      }
    }
  // 2 bits, 16 codes a word.
  Layer layer("quantize_k:k2c32-v2t32:kivi:p32:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact", 64, 13);
  std::vector<float> values(layer.k.tail.size() / 4);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i / 64 % 4);
  layer.k.tail = encoded(values, ElementType::F32);
  layer.quantize(Side::K, {0, 0, 0, 0, 32, 0});
  uint32_t first;
  std::memcpy(&first, layer.page(0, 0), 4);
  EXPECT_EQ(first, 0xe4e4e4e4u);
}

TEST(ReferenceDequantize, layout_c3_unpack_gives_back_what_was_packed) {
  for (const char *format : {"k4c32-v2t16:vnni", "k4c32-v2t16:kivi", "k4c32-v2t16:mma", "k3c32-v3t16:vnni"})
    for (const char *type : {"f32", "bf16", "f16"}) {
      Layer layer(std::string("dequantize_k:") + format + ":p64:dk96:dv80:g1:" + type + ":rows1:lag0:win0:cap0:exact",
                  64, 14);
      for (Side side : {Side::K, Side::V}) {
        layer.quantize(side, {3, 1, 0, 64, 64, 0});
        const int headDim = layer.at(side).headDim;
        const int stride = headDim + 5, first = 7, count = 20;
        std::vector<uint8_t> out(encoded(std::vector<float>(3 + 64 * stride, -1.0f), layer.req.type));
        const kvq_dequantize_item item = {3, 3, 1, first, count};
        const std::vector<uint64_t> args = {
            word(&item),      word(layer.pages.data()), word(layer.blockStride()), word(layer.headStride()),
            word(out.data()), word(int64_t{stride})};
        layer.req.op = side == Side::K ? KernelOp::DequantizeK : KernelOp::DequantizeV;
        const int64_t program[3] = {0, 0, 0};
        EXPECT_EQ(runReference(layer.req, args.data(), program), 0);
        const std::vector<float> values = decoded(out, layer.req.type);
        std::vector<float> expected(values.size(), -1.0f);
        for (int t = 0; t < count; ++t)
          for (int c = 0; c < headDim; ++c)
            expected[3 + t * stride + c] = layer.dequantized(side, 3, 1, first + t, c);
        EXPECT_EQ(values, decoded(encoded(expected, layer.req.type), layer.req.type));
      }
    }
}

TEST(ReferenceAppend, tail_c1_copies_into_the_tail_and_counts_bad_values) {
  for (const char *type : {"f32", "bf16", "f16"})
    for (int position : {101, 3, -1, -20}) { // body indices: a slot of the ring, or a row of kept tokens
      SCOPED_TRACE(std::string(type) + " " + std::to_string(position));
      const KernelRequest req =
          request(std::string("append:k4c32-v4t32:vnni:p64:dk64:dv96:g1:") + type + ":rows1:lag0:win0:cap0:exact");
      const int64_t heads = 2, cap = 48, rows = 48 + 32, slots = 2, kStride = 70, vStride = 100;
      std::vector<float> k(500), v(500);
      for (size_t i = 0; i < k.size(); ++i) {
        k[i] = static_cast<float>(i % 251);
        v[i] = -static_cast<float>(i % 241);
      }
      k[5 + kStride + 63] = std::nanf("");
      k[5 + 64] = std::nanf(""); // between the heads: not ours
      v[9] = 65536.0f;           // infinite in f16
      v[9 + vStride] = -std::numeric_limits<float>::infinity();
      const std::vector<uint8_t> kBytes = encoded(k, req.type), vBytes = encoded(v, req.type);
      std::vector<uint8_t> tailK(slots * heads * rows * 64 * byteSize(req.type), 0x11);
      std::vector<uint8_t> tailV(slots * heads * rows * 96 * byteSize(req.type), 0x22);
      std::vector<uint8_t> expectedK = tailK, expectedV = tailV;
      for (int head = 0; head < heads; ++head) {
        const int64_t row = (1 * heads + head) * rows + (position < 0 ? rows + position : position % cap);
        const int64_t size = byteSize(req.type);
        std::memcpy(&expectedK[row * 64 * size], &kBytes[(5 + head * kStride) * size], 64 * size);
        std::memcpy(&expectedV[row * 96 * size], &vBytes[(9 + head * vStride) * size], 96 * size);
      }
      const kvq_append_item items[2] = {{0, 0, 0, 0}, {5, 9, 1, position}};
      int32_t status[3] = {-7, -7, -7};
      const std::vector<uint64_t> args = {word(items),         word(kBytes.data()), word(kStride),
                                          word(vBytes.data()), word(vStride),       word(tailK.data()),
                                          word(tailV.data()),  word(cap),           word(int64_t{80}),
                                          word(heads),         word(status)};
      const int64_t program[3] = {1, 0, 0};
      EXPECT_EQ(runReference(req, args.data(), program), 0);
      EXPECT_EQ(tailK, expectedK);
      EXPECT_EQ(tailV, expectedV);
      EXPECT_EQ(status[0], -7);
      EXPECT_EQ(status[1], 3);
      EXPECT_EQ(status[2], -7);
    }
}

namespace {

// Two sequences' queries over one layer; the second one (slot 1, 3 queries at positions 90, 91, 92) is attended. Pages
// hold its tokens in blocks 3 and 1.
struct AttendCase {
  Layer layer;
  int ratio;
  std::vector<int32_t> table = {0, 3, 1}, positions = {4, 90, 91, 92}, kFrontier = {0, 64, 64, 64},
                       vFrontier = {0, 64, 64, 64};
  std::vector<int64_t> qOffsets;
  std::vector<float> q;
  std::vector<uint8_t> qBytes;
  std::vector<float> o, lse;
  float scale = 0.125f, scoreCap = 0.0f;
  int64_t window = 0, qHeadStride;
  static constexpr int kSplits = 3, kQueries = 4;

  AttendCase(std::string_view text, uint32_t seed, int64_t keep = 0)
      : layer(text, 112, seed, keep), ratio(layer.req.ratio) {
    for (Side side : {Side::K, Side::V})
      for (int head = 0; head < Layer::kHeads; ++head) {
        layer.quantize(side, {3, head, 1, 0, 64, 0});
        layer.quantize(side, {1, head, 1, 64, 32, 0});
      }
    layer.req.op = KernelOp::Attend;
    const int heads = Layer::kHeads * ratio;
    qHeadStride = layer.req.dk + 3;
    qOffsets = {900000, 7, 7 + qHeadStride * heads + 2, 7 + 2 * (qHeadStride * heads + 2)};
    q.resize(qOffsets.back() + qHeadStride * heads);
    std::mt19937 random(seed + 1);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    for (float &value : q)
      value = normal(random);
    qBytes = encoded(q, layer.req.type);
    q = decoded(qBytes, layer.req.type);
    o.assign(kSplits * kQueries * heads * layer.req.dv, -99.0f);
    lse.assign(kSplits * kQueries * heads, -99.0f);
  }

  void run(const kvq_attend_item &item) {
    const std::vector<uint64_t> args = {word(&item),
                                        word(qBytes.data()),
                                        word(qOffsets.data()),
                                        word(qHeadStride),
                                        word(layer.pages.data()),
                                        word(layer.blockStride()),
                                        word(layer.headStride()),
                                        word(table.data()),
                                        word(layer.k.tail.data()),
                                        word(layer.v.tail.data()),
                                        word(layer.cap),
                                        word(layer.rows),
                                        word(int64_t{Layer::kHeads}),
                                        word(kFrontier.data()),
                                        word(vFrontier.data()),
                                        word(positions.data()),
                                        word(scale),
                                        word(window),
                                        word(scoreCap),
                                        word(o.data()),
                                        word(lse.data()),
                                        word(int64_t{kQueries})};
    const int64_t program[3] = {0, 0, 0};
    EXPECT_EQ(runReference(layer.req, args.data(), program), 0);
  }

  // The sequence's value of one side for a query: a page below the frontier, the tail above.
  double value(Side side, int query, int head, int token, int channel) {
    const int frontier = side == Side::K ? kFrontier[query] : vFrontier[query];
    if (token >= 0 && token < frontier)
      return layer.dequantized(side, table[1 + token / 64], head, token % 64, channel);
    return layer.raw(side, 1, head, token, channel);
  }

  // Attention of one query and head over tokens [begin, end), body indices: o and, at the end, lse.
  std::vector<double> expected(int query, int head, int begin, int end) {
    std::vector<double> result(layer.req.dv + 1, 0.0);
    double sum = 0;
    for (int token = begin; token < std::min(end, positions[query] + 1); ++token) {
      double dot = 0;
      for (int c = 0; c < layer.req.dk; ++c)
        dot += q[qOffsets[query] + head * qHeadStride + c] * value(Side::K, query, head / ratio, token, c);
      const double score = scoreCap > 0 ? scoreCap * std::tanh(scale * dot / scoreCap) : scale * dot;
      const double weight = std::exp(score);
      sum += weight;
      for (int c = 0; c < layer.req.dv; ++c)
        result[c] += weight * value(Side::V, query, head / ratio, token, c);
    }
    for (int c = 0; c < layer.req.dv && sum > 0; ++c)
      result[c] /= sum;
    result[layer.req.dv] = std::log(sum);
    return result;
  }

  void check(int split, int query, int head, const std::vector<double> &want) const {
    const int64_t row = (int64_t{split} * kQueries + query) * Layer::kHeads * ratio + head;
    for (int c = 0; c < layer.req.dv; ++c)
      ASSERT_NEAR(o[row * layer.req.dv + c], want[c], 2e-6) << query << " " << head << " " << c;
    ASSERT_NEAR(lse[row], want.back(), 2e-6);
  }
};

} // namespace

// attention_c3: q, K and V in f32, bf16 or f16, partial results in f32.
TEST(ReferenceAttend, attention_c1_pages_below_the_frontier_tail_above) {
  for (const char *text : {"attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows9:lag0:win0:cap0:exact",
                           "attend:k2t16-v8c32:kivi:p64:dk96:dv80:g1:bf16:rows3:lag0:win0:cap0:exact",
                           "attend:k8c32-v2t16:mma:p64:dk96:dv80:g1:bf16:rows3:lag0:win0:cap0:exact",
                           "attend:k4t16-v2t80:vnni:p64:dk80:dv80:g2:f16:rows6:lag0:win0:cap0:exact"}) {
    SCOPED_TRACE(text);
    AttendCase test(text, 21);
    const int ratio = test.ratio;
    test.run({1, 1, 0, 3 * ratio, 0, 64, 64, 93, 64, 1, 1, 0, 0, 0, 0, 0});
    for (int query = 1; query <= 3; ++query)
      for (int head = ratio; head < 2 * ratio; ++head)
        test.check(0, query, head, test.expected(query, head, 0, 93));
    // Nothing of the other KV head, of the other sequence or of other splits is written.
    const int64_t written = std::count_if(test.lse.begin(), test.lse.end(), [](float lse) { return lse != -99.0f; });
    EXPECT_EQ(written, 3 * ratio);
  }
}

TEST(ReferenceAttend, commit_c4_each_query_is_answered_in_its_own_state) {
  AttendCase test("attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows4:lag1:win0:cap0:exact", 22);
  test.kFrontier = {0, 64, 64, 96};
  test.vFrontier = {0, 26, 27, 28};
  test.positions[3] = 96;
  // Generous ranges: K of tokens 64 .. 95 is in both, and each query takes it from one. Rows 5 .. 8 of KV head 0.
  test.run({0, 1, 5, 4, 0, 96, 64, 97, 26, 1, 1, 0, 0, 0, 0, 0});
  for (int row = 5; row < 9; ++row)
    test.check(0, 1 + row / 3, row % 3, test.expected(1 + row / 3, row % 3, 0, 97));
  EXPECT_EQ(test.lse[6 * 2 + 1], -99.0f); // row 4
}

// By the ABI a frontier may lie above the position; the position still bounds what is seen.
TEST(ReferenceAttend, attention_c1_no_key_after_the_position_inside_a_page) {
  AttendCase test("attend:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact", 25);
  test.positions[1] = 30;
  test.run({1, 1, 0, 1, 0, 64, 64, 91, 64, 1, 1, 0, 0, 0, 0, 0});
  test.check(0, 1, 1, test.expected(1, 1, 0, 31));
}

// Kept tokens are at body indices -5 .. -1: seen by everybody from their own position on, in no page, whatever the
// frontiers say.
TEST(ReferenceAttend, commit_c7_kept_tokens_are_seen_as_they_came) {
  AttendCase test("attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows9:lag0:win0:cap0:exact", 26, 16);
  test.positions = {4, -3, 0, 92};
  test.kFrontier = test.vFrontier = {0, 0, 0, 64};
  test.run({0, 1, 0, 9, 0, 64, 0, 93, 0, 1, 1, 0, 5, 0, 0, 0});
  for (int query = 1; query <= 3; ++query)
    for (int head = 0; head < 3; ++head)
      test.check(0, query, head, test.expected(query, head, -5, 93));
  // Another program's range: none of them.
  test.run({0, 1, 6, 3, 0, 64, 64, 93, 64, 1, 1, 1, 0, 0, 0, 0});
  test.check(1, 3, 2, test.expected(3, 2, 0, 93));
}

TEST(ReferenceAttend, window_c1_the_newest_keys_only) {
  AttendCase test("attend:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows3:lag0:win1:cap0:exact", 27, 16);
  for (auto [window, first] : {std::pair(1, 92), {10, 83}, {60, 33}, {93, 0}, {95, -2}, {97, -4}, {1 << 30, -4}}) {
    SCOPED_TRACE(window);
    test.window = window;
    test.run({0, 1, 2, 1, 0, 64, 64, 93, 64, 1, 1, 0, 4, 0, 0, 0});
    test.check(0, 3, 0, test.expected(3, 0, first, 93));
  }
  // Without `win1` the argument is not looked at.
  test.layer.req.window = false;
  test.window = 1;
  test.run({0, 1, 2, 1, 0, 64, 64, 93, 64, 1, 1, 0, 4, 0, 0, 0});
  test.check(0, 3, 0, test.expected(3, 0, -4, 93));
}

TEST(ReferenceAttend, attention_c11_capped_scores) {
  AttendCase test("attend:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap1:exact", 28);
  test.scoreCap = 1.5f; // of scores up to some 10
  test.run({0, 1, 0, 1, 0, 64, 64, 91, 64, 1, 1, 0, 0, 0, 0, 0});
  test.check(0, 1, 0, test.expected(1, 0, 0, 91));
}

TEST(ReferenceAttend, attention_c2_scale_and_lse_are_natural) {
  AttendCase test("attend:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact", 23);
  test.scale = 0.0f;
  test.run({0, 1, 0, 1, 0, 64, 64, 91, 64, 1, 1, 0, 0, 0, 0, 0});
  EXPECT_FLOAT_EQ(test.lse[2], std::log(91.0f));
  double mean = 0;
  for (int token = 0; token < 91; ++token)
    mean += test.value(Side::V, 1, 0, token, 5) / 91;
  EXPECT_NEAR(test.o[2 * 64 + 5], mean, 1e-6);
  test.scale = 30.0f; // scores of some hundreds: no overflow, the largest one wins
  test.run({0, 1, 0, 1, 0, 64, 64, 91, 64, 1, 1, 0, 0, 0, 0, 0});
  EXPECT_TRUE(std::isfinite(test.lse[2]));
}

TEST(ReferenceMerge, merge_c1_parts_give_the_whole) {
  for (const char *type : {"f32", "bf16", "f16"}) {
    AttendCase test(std::string("attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:") + type + ":rows3:lag0:win0:cap0:exact",
                    24);
    for (int head = 0; head < 2; ++head) {
      test.run({head, 1, 0, 3, 0, 64, 64, 64, 64, 1, 1, 0, 0, 0, 0, 0});
      test.run({head, 1, 0, 3, 64, 64, 64, 93, 64, 1, 1, 1, 0, 0, 0, 0});
      test.run({head, 1, 0, 3, 64, 64, 93, 93, 64, 1, 1, 2, 0, 0, 0, 0}); // an empty range
    }
    const int heads = 6;
    for (int head = 0; head < heads; ++head) {
      test.check(0, 1, head, test.expected(1, head, 0, 64));
      const int64_t empty = (2 * AttendCase::kQueries + 1) * heads + head;
      EXPECT_EQ(test.lse[empty], kMinusInfinity);
      EXPECT_EQ(test.o[empty * 64], 0.0f);
      test.o[empty * 64] = std::nanf(""); // must weigh nothing
    }
    test.layer.req.op = KernelOp::Merge;
    std::vector<int32_t> splits = {0, 3, 0, 0};
    std::vector<int64_t> offsets = {5000, 4, 5000, 5000};
    const int64_t stride = 70;
    std::vector<uint8_t> out = encoded(std::vector<float>(4 + heads * stride, -5.0f), test.layer.req.type);
    std::vector<float> lse(AttendCase::kQueries * heads, -99.0f);
    // attention_c12: half of the heads have a sink logit.
    std::vector<float> sinks(heads, -std::numeric_limits<float>::infinity());
    sinks[1] = 1.5f, sinks[3] = -2.0f, sinks[4] = 30.0f;
    const std::vector<uint64_t> args = {word(test.o.data()),  word(test.lse.data()), word(int64_t{4}),
                                        word(int64_t{heads}), word(splits.data()),   word(out.data()),
                                        word(offsets.data()), word(stride),          word(lse.data()),
                                        word(sinks.data()),   word(int64_t{4})};
    // Of six heads four, then the two that are left.
    for (const int64_t part : {0, 1}) {
      const int64_t program[3] = {1, part, 0};
      EXPECT_EQ(runReference(test.layer.req, args.data(), program), 0);
      EXPECT_EQ(std::count(lse.begin(), lse.end(), -99.0f), 3 * heads + (part == 0 ? 2 : 0));
    }
    const std::vector<float> values = decoded(out, test.layer.req.type);
    const double tolerance = test.layer.req.type == ElementType::F32 ? 2e-6 : 0x1p-8;
    for (int head = 0; head < heads; ++head) {
      std::vector<double> want = test.expected(1, head, 0, 93);
      const double sum = std::exp(want.back()), all = sum + std::exp(double{sinks[head]});
      for (double &value : want)
        value *= sum / all;
      want.back() = std::log(all);
      for (int c = 0; c < 64; ++c)
        ASSERT_NEAR(values[4 + head * stride + c], want[c], tolerance * std::max(1.0, std::abs(want[c])));
      EXPECT_EQ(values[4 + head * stride - 1], -5.0f);
      EXPECT_NEAR(lse[heads + head], want.back(), 4e-6);
    }
    EXPECT_EQ(std::count(lse.begin(), lse.end(), -99.0f), 3 * heads);
  }
}

TEST(ReferenceMerge, merge_c1_no_key_at_all) {
  KernelRequest req = request("merge:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact");
  std::vector<float> o(2 * 64, 7.0f), lse(2, -std::numeric_limits<float>::infinity()), out(64, 1.0f), outLse(1, 1.0f);
  const int32_t splits = 2;
  const int64_t offset = 0;
  for (float sink : {-std::numeric_limits<float>::infinity(), 3.5f}) { // a sink alone has no value
    std::fill(out.begin(), out.end(), 1.0f);
    const std::vector<uint64_t> args = {word(o.data()),      word(lse.data()), word(int64_t{1}), word(int64_t{1}),
                                        word(&splits),       word(out.data()), word(&offset),    word(int64_t{64}),
                                        word(outLse.data()), word(&sink),      word(int64_t{1})};
    const int64_t program[3] = {0, 0, 0};
    EXPECT_EQ(runReference(req, args.data(), program), 0);
    EXPECT_EQ(out, std::vector<float>(64, 0.0f));
    EXPECT_EQ(outLse[0], sink);
  }
}
