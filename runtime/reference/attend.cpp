// SPDX-License-Identifier: Apache-2.0
//
// attend and merge (docs/format-spec.md section 7): per row, all scores first, then one softmax. Inputs and outputs
// have the types of attention_c3; in between everything is f64, which that rule's f32 accumulation is measured against.
#include "runtime/reference/page.h"

#include <kvq/kernel_abi.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace kvq::reference {

static constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
static constexpr int64_t kNoValue = -1; // in place of a part's number: a sink logit

namespace {

// Rows of one side of one sequence and KV head, from its pages or from its tail.
class SideRows {
public:
  SideRows(const KernelRequest &request, Side side, const uint64_t *args, const kvq_attend_item &item)
      : view_(request, side), type_(request.type), item_(item), row_(view_.headDim),
        pool_(pointer<uint8_t>(args, KVQ_ATTEND_PAGES)), blockStride_(integer(args, KVQ_ATTEND_BLOCK_STRIDE)),
        headStride_(integer(args, KVQ_ATTEND_HEAD_STRIDE)),
        table_(pointer<const int32_t>(args, KVQ_ATTEND_BLOCK_TABLE)),
        data_(pointer<const void>(args, side == Side::K ? KVQ_ATTEND_TAIL_K : KVQ_ATTEND_TAIL_V)),
        tail_{integer(args, KVQ_ATTEND_KV_HEADS), integer(args, KVQ_ATTEND_TAIL_CAP),
              integer(args, KVQ_ATTEND_TAIL_ROWS), view_.headDim} {}

  const std::vector<float> &packed(int64_t token) {
    const int64_t block = table_[item_.table_base + token / view_.pageTokens];
    const uint8_t *page = view_.page(pool_, blockStride_, headStride_, block, item_.kv_head);
    for (int c = 0; c < view_.headDim; ++c)
      row_[c] = view_.value(page, token % view_.pageTokens, c);
    return row_;
  }
  const std::vector<float> &raw(int64_t token) {
    const int64_t first = tail_.row(item_.tail_slot, item_.kv_head, token);
    for (int c = 0; c < view_.headDim; ++c)
      row_[c] = loadElement(data_, first + c, type_);
    return row_;
  }

private:
  SideView view_;
  ElementType type_;
  const kvq_attend_item &item_;
  std::vector<float> row_;
  uint8_t *pool_;
  int64_t blockStride_, headStride_;
  const int32_t *table_;
  const void *data_;
  TailView tail_;
};

// One key that a row sees, or one part of a merge, and its score.
struct Score {
  int64_t token;
  double value;
};

} // namespace

// The keys of the item's ranges that the query sees (attention_c1, commit_c7, window_c1), with their scores in natural
// units (attention_c2), capped (attention_c11).
static std::vector<Score> scoresOfRow(const KernelRequest &request, const uint64_t *args, const kvq_attend_item &item,
                                      SideRows &k, int64_t query, const std::vector<float> &q) {
  const int64_t position = pointer<const int32_t>(args, KVQ_ATTEND_POSITIONS)[query];
  const int64_t frontier = pointer<const int32_t>(args, KVQ_ATTEND_K_FRONTIER)[query];
  const double scale = std::bit_cast<float>(static_cast<uint32_t>(args[KVQ_ATTEND_SCALE]));
  const double cap = std::bit_cast<float>(static_cast<uint32_t>(args[KVQ_ATTEND_SCORE_CAP]));
  const int64_t window = request.window ? integer(args, KVQ_ATTEND_WINDOW) : std::numeric_limits<int64_t>::max();
  std::vector<Score> scores;
  auto visit = [&](int64_t token, const std::vector<float> &row) {
    if (position - token >= window)
      return;
    double dot = 0;
    for (size_t c = 0; c < q.size(); ++c)
      dot += double{q[c]} * double{row[c]};
    const double score = scale * dot;
    scores.push_back({token, request.scoreCap ? cap * std::tanh(score / cap) : score});
  };
  for (int64_t token = -int64_t{item.kept}; token < 0; ++token)
    if (token <= position)
      visit(token, k.raw(token));
  for (int64_t token = item.packed_begin; token < item.packed_end; ++token)
    if (token <= position && token < frontier)
      visit(token, k.packed(token));
  for (int64_t token = item.raw_begin; token < item.raw_end; ++token)
    if (token <= position && token >= frontier)
      visit(token, k.raw(token));
  return scores;
}

static double logSumExp(const std::vector<Score> &scores) {
  if (scores.empty())
    return kMinusInfinity;
  double most = kMinusInfinity;
  for (const Score &score : scores)
    most = std::max(most, score.value);
  double sum = 0;
  for (const Score &score : scores)
    sum += std::exp(score.value - most);
  return most + std::log(sum);
}

int32_t attend(const KernelRequest &request, const uint64_t *args, const int64_t *programId) {
  const kvq_attend_item &item = pointer<const kvq_attend_item>(args, KVQ_ATTEND_ITEMS)[programId[0]];
  SideRows k(request, Side::K, args, item), v(request, Side::V, args, item);
  const int64_t queries = integer(args, KVQ_ATTEND_QUERIES);
  const int64_t qHeads = integer(args, KVQ_ATTEND_KV_HEADS) * request.ratio;
  std::vector<float> q(request.dk);
  for (int64_t row = item.row_begin; row < int64_t{item.row_begin} + item.row_count; ++row) {
    const int64_t query = item.query_base + row / request.ratio;
    const int64_t head = int64_t{item.kv_head} * request.ratio + row % request.ratio;
    const int64_t qFirst =
        pointer<const int64_t>(args, KVQ_ATTEND_Q_OFFSETS)[query] + head * integer(args, KVQ_ATTEND_Q_HEAD_STRIDE);
    for (int c = 0; c < request.dk; ++c)
      q[c] = loadElement(pointer<const void>(args, KVQ_ATTEND_Q), qFirst + c, request.type);

    const std::vector<Score> scores = scoresOfRow(request, args, item, k, query, q);
    const double lse = logSumExp(scores);
    const int64_t frontier = pointer<const int32_t>(args, KVQ_ATTEND_V_FRONTIER)[query];
    std::vector<double> o(request.dv, 0.0);
    for (const Score &score : scores) {
      const bool packed = score.token >= 0 && score.token < frontier;
      const std::vector<float> &values = packed ? v.packed(score.token) : v.raw(score.token);
      const double weight = std::exp(score.value - lse);
      for (int c = 0; c < request.dv; ++c)
        o[c] += weight * double{values[c]};
    }

    const int64_t partial = (item.split * queries + query) * qHeads + head;
    for (int c = 0; c < request.dv; ++c)
      pointer<float>(args, KVQ_ATTEND_PARTIAL_O)[partial * request.dv + c] = static_cast<float>(o[c]);
    pointer<float>(args, KVQ_ATTEND_PARTIAL_LSE)[partial] = static_cast<float>(lse);
  }
  return 0;
}

// merge_c1, attention_c12. A part with lse = -inf is skipped rather than weighed: its o may be anything.
int32_t merge(const KernelRequest &request, const uint64_t *args, const int64_t *programId) {
  const int64_t query = programId[0];
  const int64_t queries = integer(args, KVQ_MERGE_QUERIES), heads = integer(args, KVQ_MERGE_HEADS);
  const float *partialO = pointer<const float>(args, KVQ_MERGE_PARTIAL_O);
  const float *partialLse = pointer<const float>(args, KVQ_MERGE_PARTIAL_LSE);
  const int64_t splits = pointer<const int32_t>(args, KVQ_MERGE_SPLITS)[query];
  const int64_t some = integer(args, KVQ_MERGE_PROGRAM_HEADS), begin = programId[1] * some;
  for (int64_t head = begin; head < std::min(begin + some, heads); ++head) {
    std::vector<Score> parts;
    const float sink = pointer<const float>(args, KVQ_MERGE_SINKS)[head];
    if (sink != kMinusInfinity)
      parts.push_back({kNoValue, sink});
    for (int64_t split = 0; split < splits; ++split) {
      const int64_t partial = (split * queries + query) * heads + head;
      if (partialLse[partial] != kMinusInfinity) // a NaN stays visible
        parts.push_back({partial, partialLse[partial]});
    }
    const double lse = logSumExp(parts);
    std::vector<double> o(request.dv, 0.0);
    for (const Score &part : parts)
      for (int c = 0; c < request.dv && part.token != kNoValue; ++c)
        o[c] += std::exp(part.value - lse) * double{partialO[part.token * request.dv + c]};
    const int64_t first =
        pointer<const int64_t>(args, KVQ_MERGE_OUT_OFFSETS)[query] + head * integer(args, KVQ_MERGE_OUT_HEAD_STRIDE);
    for (int c = 0; c < request.dv; ++c)
      storeElement(pointer<void>(args, KVQ_MERGE_OUT), first + c, request.type, static_cast<float>(o[c]));
    pointer<float>(args, KVQ_MERGE_LSE)[query * heads + head] = static_cast<float>(lse);
  }
  return 0;
}

} // namespace kvq::reference
