// SPDX-License-Identifier: Apache-2.0
//
// Work lists. The split of the keys depends on the positions of the chunk's queries alone.
#include "runtime/cache/planner.h"

#include <algorithm>
#include <tuple>

namespace kvq {

// Of a row in the tail, in packed tokens: measured 4.1 at 4 bits, 5.3 at 8, 6.7 at 2 (D 128, f32). It orders programs
// only.
static constexpr int64_t kRawCost = 4;

// Splits of one sequence. Longer contexts have longer splits, so that the partial results, their merge and the list of
// programs stay as they are.
int64_t Planner::mostSplits() const {
  const SplitPolicy policy = splitPolicy(config_);
  return std::clamp(policy.programs / config_.kvHeads, policy.least, policy.most);
}

// The part's tokens in chunk `index`: [begin, begin + count) of its new tokens.
static int tokensInChunk(const StepPart &part, int index, int &begin) {
  begin = index * kChunkTokens;
  return std::clamp(part.newTokens - begin, 0, kChunkTokens);
}

Planner::Splits Planner::splitsOf(const Queries &queries) const {
  const int64_t page = config_.pageTokens;
  const int last = queries.count - 1;
  const int64_t lowest = queries.lowest(0);
  const int64_t packedBegin = lowest / page * page;
  const int64_t packed = std::max<int64_t>(0, queries.state(last).k - packedBegin);
  const int64_t rawBegin = std::max(queries.state(0).k, lowest);
  const int64_t raw = queries.keysEnd(last) - rawBegin;
  int64_t length = geometry_.splitTokens;
  while (std::max(packed, raw) > mostSplits() * length)
    length *= 2;
  const auto splits = [&](int64_t tokens) { return static_cast<int>((tokens + length - 1) / length); };
  return {splits(packed), raw > length ? splits(raw) : 0, packedBegin, rawBegin, length};
}

void Planner::planQuantize(const StepPart &part, const int32_t *table, int64_t from, int64_t to,
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

// One program over split number `split` of the keys, without its KV head. Ranges fit all rows; kernels mask by row.
kvq_attend_item Planner::attendItem(const Queries &queries, const Splits &splits, int row, int rowCount,
                                    int split) const {
  const int64_t length = splits.length;
  const int firstQuery = row / config_.ratio(), lastQuery = (row + rowCount - 1) / config_.ratio();
  const Frontier low = queries.state(firstQuery);
  const int64_t lowest = queries.lowest(firstQuery), keys = queries.keysEnd(lastQuery);
  int64_t begin = 0, end = 0, rawBegin = 0, rawEnd = 0;
  if (split < splits.packed) {
    begin = splits.packedBegin + split * length;
    end = std::max(begin, std::min(begin + length, queries.state(lastQuery).k));
  }
  if (splits.raw == 0 && split == splits.total() - 1) {
    rawBegin = std::max(low.k, lowest);
    rawEnd = std::max(rawBegin, keys);
  } else if (split >= splits.packed) {
    const int64_t window = splits.rawBegin + (split - splits.packed) * length;
    rawBegin = std::max(window, low.k);
    rawEnd = std::max(rawBegin, std::min(window + length, keys));
  }
  const int kept = split == 0 && lowest == 0 ? config_.format.keep : 0;
  return {0,
          0,
          row,
          rowCount,
          static_cast<int32_t>(begin),
          static_cast<int32_t>(end),
          static_cast<int32_t>(rawBegin),
          static_cast<int32_t>(rawEnd),
          static_cast<int32_t>(low.v),
          queries.part.tableBase,
          queries.part.sequence,
          split,
          kept,
          0,
          0,
          0};
}

void Planner::planAttend(const Queries &queries, int queryBase, Chunk &chunk) const {
  const Splits splits = splitsOf(queries);
  const int rows = queries.count * config_.ratio(), step = kernels_.most();
  for (int row = 0; row < rows; row += step)
    for (int split = 0; split < splits.total(); ++split) {
      kvq_attend_item item = attendItem(queries, splits, row, std::min(step, rows - row), split);
      item.query_base = queryBase;
      const int64_t packed = item.packed_end - item.packed_begin, raw = item.raw_end - item.raw_begin + item.kept;
      chunk.attendKeys += (packed + raw) * config_.kvHeads;
      chunk.groups.push_back({item, packed + kRawCost * raw, kernels_.kernelFor(item.row_count)});
    }
  chunk.maxSplits = std::max(chunk.maxSplits, splits.total());
  chunk.splits.insert(chunk.splits.end(), queries.count, splits.total());
}

// Threads take programs in the order of the list. The longest first, so that short ones fill the gaps at the end; what
// a program writes does not depend on its place.
void Planner::listPrograms(Chunk &chunk) const {
  const auto place = [](const Chunk::Group &group) {
    return std::tuple(-group.cost, group.item.query_base, group.item.row_begin, group.item.split);
  };
  std::sort(chunk.groups.begin(), chunk.groups.end(),
            [&](const Chunk::Group &a, const Chunk::Group &b) { return place(a) < place(b); });
  for (Chunk::Group &group : chunk.groups) {
    kvq_attend_item &item = group.item;
    for (item.kv_head = 0; item.kv_head < config_.kvHeads; ++item.kv_head)
      chunk.attend[group.kernel].push_back(item);
  }
  for (auto &items : chunk.attend)
    linkPrograms(items);
}

// Each program brings in the first page of the one that its thread is likely to take next, or its own where that one
// has none. A program without pages reads neither.
void Planner::linkPrograms(std::vector<kvq_attend_item> &items) const {
  const auto count = static_cast<int64_t>(items.size());
  for (int64_t i = 0; i < count; ++i) {
    const kvq_attend_item &follower = i + stride_ < count ? items[i + stride_] : items[i];
    const kvq_attend_item &next = follower.packed_begin < follower.packed_end ? follower : items[i];
    items[i].next_entry = static_cast<int32_t>(next.table_base + next.packed_begin / config_.pageTokens);
    items[i].next_head = next.kv_head;
  }
}

// Room for as many programs as such a chunk has at the longest context: lists do not grow because a context does.
void Planner::reservePrograms(std::span<const StepPart> parts, int index, Chunk &chunk) const {
  const int64_t splits = mostSplits() + geometry_.rows / geometry_.splitTokens + 2;
  int64_t programs[AttendRows::kMost] = {}, groups = 0;
  for (const StepPart &part : parts) {
    int begin;
    for (int rows = tokensInChunk(part, index, begin) * config_.ratio(); rows > 0; rows -= kernels_.most(), ++groups)
      ++programs[kernels_.kernelFor(std::min(rows, kernels_.most()))];
  }
  chunk.groups.reserve(groups * splits);
  for (int kernel = 0; kernel < AttendRows::kMost; ++kernel)
    chunk.attend[kernel].reserve(programs[kernel] * splits * config_.kvHeads);
}

void Planner::plan(std::span<const StepPart> parts, const int32_t *table, int index, Chunk &chunk) const {
  for (auto *list : {&chunk.part, &chunk.token, &chunk.positions, &chunk.kFrontier, &chunk.vFrontier, &chunk.splits})
    list->clear();
  for (auto &list : chunk.attend)
    list.clear();
  for (auto *list : {&chunk.quantizeK, &chunk.quantizeV})
    list->clear();
  chunk.append.clear();
  chunk.groups.clear();
  chunk.index = index;
  chunk.maxSplits = 0;
  chunk.quantizeTokens = chunk.attendKeys = 0;
  reservePrograms(parts, index, chunk);
  for (size_t p = 0; p < parts.size(); ++p) {
    const StepPart &part = parts[p];
    int begin;
    const int count = tokensInChunk(part, index, begin);
    if (count == 0)
      continue;
    const int64_t first = part.begin + begin;
    const int queryBase = chunk.queries();
    const Queries queries{*this, part, first, count};
    for (int i = 0; i < count; ++i) {
      const Frontier state = queries.state(i);
      chunk.append.push_back({0, 0, part.sequence, static_cast<int32_t>(first + i)});
      chunk.part.push_back(static_cast<int32_t>(p));
      chunk.token.push_back(begin + i);
      chunk.positions.push_back(static_cast<int32_t>(queries.position(i)));
      chunk.kFrontier.push_back(static_cast<int32_t>(state.k));
      chunk.vFrontier.push_back(static_cast<int32_t>(state.v));
    }
    // What the chunk's last token makes due is already quantized here. Its queries do not see it (their frontiers are
    // in the tables), and the next chunk may then overwrite those ring slots.
    const Frontier from = part.stateAt(config_.format, first), to = part.stateAt(config_.format, first + count);
    planQuantize(part, table, from.k, to.k, chunk.quantizeK);
    planQuantize(part, table, from.v, to.v, chunk.quantizeV);
    chunk.quantizeTokens += (to.k - from.k + to.v - from.v) * config_.kvHeads;
    planAttend(queries, queryBase, chunk);
  }
  listPrograms(chunk);
}

void Planner::size(std::span<const StepPart> parts, int index, int64_t &queries, int64_t &splits) const {
  queries = splits = 0;
  for (const StepPart &part : parts) {
    int begin;
    const int count = tokensInChunk(part, index, begin);
    if (count == 0)
      continue;
    queries += count;
    splits = std::max<int64_t>(splits, splitsOf({*this, part, part.begin + begin, count}).total());
  }
}

} // namespace kvq
