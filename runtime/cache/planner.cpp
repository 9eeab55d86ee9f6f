// SPDX-License-Identifier: Apache-2.0
//
// Work lists. The split of the keys depends on the positions of the chunk's queries alone.
#include "runtime/cache/planner.h"

#include <algorithm>

namespace kvq {

// The part's tokens in chunk `index`: [begin, begin + count) of its new tokens.
static int tokensInChunk(const StepPart &part, int index, int &begin) {
  begin = index * kChunkTokens;
  return std::clamp(part.newTokens - begin, 0, kChunkTokens);
}

Planner::Splits Planner::splitsOf(int64_t firstPosition, int64_t lastPosition) const {
  const int64_t length = geometry_.splitTokens;
  const int64_t packedEnd = frontier(config_.format, lastPosition).k;
  const int64_t rawBegin = frontier(config_.format, firstPosition).k;
  const int64_t raw = lastPosition + 1 - rawBegin;
  const auto splits = [&](int64_t tokens) { return static_cast<int>((tokens + length - 1) / length); };
  return {splits(packedEnd), raw > length ? splits(raw) : 0, rawBegin};
}

void Planner::planQuantize(const StepPart &part, std::span<const int32_t> table, int64_t from, int64_t to,
                           std::vector<kvq_quantize_item> &items) const {
  const int64_t page = config_.pageTokens;
  for (int64_t begin = from; begin < to;) {
    const int64_t end = std::min(to, (begin / page + 1) * page);
    const int32_t block = table[part.tableBase + begin / page];
    for (int head = 0; head < config_.kvHeads; ++head)
      items.push_back({block, head, part.sequence, static_cast<int32_t>(begin), static_cast<int32_t>(end - begin), 0});
    begin = end;
  }
}

void Planner::planAttend(const StepPart &part, int64_t firstPosition, int count, int queryBase, Chunk &chunk) const {
  const Splits splits = splitsOf(firstPosition, firstPosition + count - 1);
  const int64_t length = geometry_.splitTokens;
  const int ratio = config_.ratio(), rows = count * ratio, step = count == 1 ? ratio : kChunkRows;
  auto &items = count == 1 ? chunk.decode : chunk.chunk;
  for (int row = 0; row < rows; row += step) {
    const int rowCount = std::min(step, rows - row);
    const int64_t last = firstPosition + (row + rowCount - 1) / ratio;
    const Frontier low = frontier(config_.format, firstPosition + row / ratio);
    const int64_t packedEnd = frontier(config_.format, last).k;
    for (int split = 0; split < splits.total(); ++split) {
      int64_t begin = 0, end = 0, rawBegin = 0, rawEnd = 0;
      if (split < splits.packed) {
        begin = split * length;
        end = std::max(begin, std::min(begin + length, packedEnd));
      }
      const bool wholeRaw = splits.raw == 0 && split == splits.total() - 1;
      if (wholeRaw) {
        rawBegin = low.k, rawEnd = last + 1;
      } else if (split >= splits.packed) {
        const int64_t window = splits.rawBegin + (split - splits.packed) * length;
        rawBegin = std::max(window, low.k);
        rawEnd = std::max(rawBegin, std::min(window + length, last + 1));
      }
      for (int head = 0; head < config_.kvHeads; ++head)
        items.push_back({head, queryBase, row, rowCount, static_cast<int32_t>(begin), static_cast<int32_t>(end),
                         static_cast<int32_t>(rawBegin), static_cast<int32_t>(rawEnd), static_cast<int32_t>(low.v),
                         part.tableBase, part.sequence, split});
      chunk.attendKeys += (end - begin + rawEnd - rawBegin) * config_.kvHeads;
    }
  }
  chunk.maxSplits = std::max(chunk.maxSplits, splits.total());
  chunk.splits.insert(chunk.splits.end(), count, splits.total());
}

void Planner::plan(std::span<const StepPart> parts, std::span<const int32_t> table, int index, Chunk &chunk) const {
  for (auto *list : {&chunk.part, &chunk.token, &chunk.positions, &chunk.kFrontier, &chunk.vFrontier, &chunk.splits})
    list->clear();
  for (auto *list : {&chunk.decode, &chunk.chunk})
    list->clear();
  for (auto *list : {&chunk.quantizeK, &chunk.quantizeV})
    list->clear();
  chunk.append.clear();
  chunk.index = index;
  chunk.maxSplits = 0;
  chunk.quantizeTokens = chunk.attendKeys = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const StepPart &part = parts[p];
    int begin;
    const int count = tokensInChunk(part, index, begin);
    if (count == 0)
      continue;
    const int64_t first = part.oldLength + begin;
    const int queryBase = chunk.queries();
    for (int i = 0; i < count; ++i) {
      const Frontier state = frontier(config_.format, first + i);
      chunk.append.push_back({0, 0, part.sequence, static_cast<int32_t>(first + i)});
      chunk.part.push_back(static_cast<int32_t>(p));
      chunk.token.push_back(begin + i);
      chunk.positions.push_back(static_cast<int32_t>(first + i));
      chunk.kFrontier.push_back(static_cast<int32_t>(state.k));
      chunk.vFrontier.push_back(static_cast<int32_t>(state.v));
    }
    // What the chunk's last token makes due is already quantized here. Its queries do not see it (their frontiers are
    // in the tables), and the next chunk may then overwrite those ring slots.
    const Frontier from = frontier(config_.format, first), to = frontier(config_.format, first + count);
    planQuantize(part, table, from.k, to.k, chunk.quantizeK);
    planQuantize(part, table, from.v, to.v, chunk.quantizeV);
    chunk.quantizeTokens += (to.k - from.k + to.v - from.v) * config_.kvHeads;
    planAttend(part, first, count, queryBase, chunk);
  }
}

void Planner::size(std::span<const StepPart> parts, int index, int64_t &queries, int64_t &splits) const {
  queries = splits = 0;
  for (const StepPart &part : parts) {
    int begin;
    const int count = tokensInChunk(part, index, begin);
    if (count == 0)
      continue;
    const int64_t first = part.oldLength + begin;
    queries += count;
    splits = std::max<int64_t>(splits, splitsOf(first, first + count - 1).total());
  }
}

} // namespace kvq
