// SPDX-License-Identifier: Apache-2.0
//
// What the attend kernels bring in ahead of its use: every prefetch of three programs in a row is recorded, with the
// loads between them. Speed alone would show a wrong one, and only on a machine that is not busy.

#include "tests/unit/codegen/record_kernel.h"
#include "tests/unit/codegen/run_kernel.h"

#include "runtime/format/layout.h"
#include "runtime/format/problem.h"

#include <set>

using namespace kvq_test;

namespace {

struct PrefetchCase {
  const char *name, *request;
  int64_t tiles; // of a page
};
void PrintTo(const PrefetchCase &chosen, std::ostream *os) { *os << chosen.name; }
constexpr PrefetchCase kCases[] = {
    {"one_tile", "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g4:bf16:rows4:lag1:win0:cap0:exact", 1},
    {"lagging_in_a_long_tile", "attend:k2c32-v2t32:vnni:p128:dk64:dv128:g4:f32:rows4:lag1:win0:cap0:normal", 1},
    {"lagging_under_a_window", "attend:k2c64-v4t32:vnni:p256:dk64:dv64:g2:f32:rows2:lag1:win1:cap0:exact", 2},
    {"few_lines", "attend:k2c32-v2t32:vnni:p32:dk32:dv128:g3:f32:rows3:lag0:win0:cap1:full", 1},
    {"long_page", "attend:k8c32-v8t32:vnni:p128:dk128:dv128:g4:f16:rows4:lag0:win0:cap0:normal", 1},
    {"two_tiles", "attend:k4c32-v2t32:vnni:p256:dk128:dv64:g2:f32:rows2:lag0:win1:cap0:fast", 2},
    {"lines_that_tiles_do_not_divide", "attend:k3c256-v3c256:vnni:p256:dk80:dv192:g1:f16:rows48:lag0:win0:cap0:exact",
     4},
};
constexpr int64_t kHeads = 2, kCap = 96, kBlocks = 8;
// Sequences of three pages and of two, neither in the order of the pool.
constexpr int32_t kTable[] = {5, 2, 6, 1, 3};
constexpr int64_t kShortTile = 32;  // of keys that lag, and of those before them that not every row sees
constexpr int64_t kNearLines = 256; // of a long page with one tile: how far ahead its own lines are brought in

// The page of an entry of kTable.
struct PageOf {
  int64_t entry, head;
};

// A program: tokens of the pages from `first` on.
struct Program {
  PageOf first;
  int64_t tokens;
};

// A tile that a program visits, by its place among the program's tokens.
struct Tile {
  int64_t begin, tokens;
};

// A line of 64 bytes: page (in the order of the pool) and number in it, which is -1 or too large beside the page.
using Line = std::pair<int64_t, int64_t>;

class Attend {
public:
  Attend(const PrefetchCase &chosen, const mlir::kvq::cpu::CpuLevel *level)
      : chosen(chosen), level(level), request(::kvq::parseKernelRequest(chosen.request).value()),
        lines(::kvq::pageMap(request.pair, request.pageTokens, request.dk, request.dv).bytes / 64),
        pool((kBlocks * kHeads * (lines + kGap) + 1) * 64) {
    base = reinterpret_cast<uint8_t *>((word(pool.data()) + 63) / 64 * 64);
    const int64_t page = request.pageTokens;
    // The second sequence ends within the first tile of a page.
    programs = {{{0, 0}, 3 * page - 1}, {{0, 1}, 3 * page - 1}, {{3, 0}, page + 1}};
    after = {3, 1};
  }

  void run();

  // What the programs should bring in: page by page by the table, then the first page of the program that follows.
  std::vector<Line> expected() const;
  // The lines of the first program's first page that nobody could bring in before.
  int64_t startLines() const { return isLong() ? kNearLines : lines; }
  // Coefficients come before the products with the codes, and their scales and minima lie behind the codes: those of a
  // long page's own lines that its tile brings in are not there in time.
  bool mayBeLate(Line line) const {
    const ::kvq::PageMap map = ::kvq::pageMap(request.pair, request.pageTokens, request.dk, request.dv);
    const int64_t byte = line.second * 64;
    const bool isCodes = byte < map.kScale || (byte >= map.vCodes && byte < map.vScale);
    return isLong() && line.second >= kNearLines && !isCodes;
  }
  Line pageAt(PageOf page, int64_t line) const { return {kTable[page.entry] * kHeads + page.head, line}; }

  bool visitsTwice() const { return request.lag; }

  std::vector<Line> prefetched; // without lines that repeat the one before
  std::set<Line> late;          // read before they were brought in
  std::vector<Line> outside;    // read or brought in beside a page
  std::set<Line> read;
  std::vector<Program> programs;

private:
  static constexpr int64_t kGap = 1; // lines behind each page that belong to nobody
  bool isLong() const { return chosen.tiles == 1 && lines > kNearLines; }
  PageOf following(size_t program) const { return program + 1 < programs.size() ? programs[program + 1].first : after; }
  void record(const MemoryAccess &access);
  std::vector<kvq_attend_item> items() const;
  int64_t lagging() const { return request.lag ? 5 : 0; } // keys whose V is still in the tail
  // Keys that the program's query looks at: the first one looks at half of them, so that some tiles are seen whole,
  // others not.
  static int64_t seen(const Program &program) {
    return program.first.entry == 0 ? program.tokens / 2 + 1 : program.tokens;
  }
  std::vector<Tile> visited(const Program &program) const;

  const PrefetchCase &chosen;
  const mlir::kvq::cpu::CpuLevel *level;
  ::kvq::KernelRequest request;
  int64_t lines; // of a page
  std::vector<uint8_t> pool;
  uint8_t *base;
  PageOf after; // where the last program is told that the thread goes on
  std::set<Line> near;
};

void Attend::record(const MemoryAccess &access) {
  auto begin = static_cast<int64_t>(access.address - word(base));
  auto end = begin + std::max<int64_t>(access.prefetch ? 64 : static_cast<int64_t>(access.bytes), 1);
  if (begin < 0 || end > kBlocks * kHeads * (lines + kGap) * 64)
    return; // queries, tables, scratch
  for (int64_t at = begin / 64; at * 64 < end; ++at) {
    Line line = {at / (lines + kGap), at % (lines + kGap)};
    if (line.second >= lines)
      outside.push_back(line);
    if (!access.prefetch) {
      read.insert(line);
      if (!near.contains(line))
        late.insert(line);
    } else if (prefetched.empty() || prefetched.back() != line) {
      prefetched.push_back(line);
      near.insert(line);
    }
  }
}

std::vector<kvq_attend_item> Attend::items() const {
  std::vector<kvq_attend_item> result;
  for (size_t i = 0; i < programs.size(); ++i) {
    const Program &program = programs[i];
    kvq_attend_item item = {};
    item.kv_head = static_cast<int32_t>(program.first.head);
    item.query_base = program.first.entry == 0 ? 0 : 1;
    item.row_count = request.ratio;
    // Under a window the first page is the sequence's second, and the table has none for those before it.
    item.packed_begin = request.window ? request.pageTokens : 0;
    item.packed_end = item.packed_begin + static_cast<int32_t>(program.tokens);
    item.raw_begin = item.raw_end = item.packed_end;
    item.v_raw_begin = item.packed_end - static_cast<int32_t>(lagging());
    item.table_base = static_cast<int32_t>(program.first.entry) - (request.window ? 1 : 0);
    item.next_entry = static_cast<int32_t>(following(i).entry);
    item.next_head = static_cast<int32_t>(following(i).head);
    result.push_back(item);
  }
  return result;
}

void Attend::run() {
  for (int64_t line = 0; line < startLines(); ++line)
    near.insert(pageAt(programs.front().first, line));
  Recorder recorder = [this](const MemoryAccess &access) { record(access); };
  mlir::kvq::CompileInput input;
  input.request = chosen.request;
  input.target = mlir::kvq::cpu::targetOf(*level);
  auto kernel = loadRecorded(input, recorder);
  ASSERT_TRUE(static_cast<bool>(kernel)) << llvm::toString(kernel.takeError());

  const std::vector<kvq_attend_item> items = this->items();
  const int64_t heads = kHeads * request.ratio, dim = std::max(request.dk, request.dv);
  // Of the largest type.
  std::vector<float> q(2 * heads * dim), tail(kHeads * kCap * dim), o(2 * heads * dim), lse(2 * heads);
  const std::vector<int64_t> offsets = {0, heads * request.dk};
  const std::vector<int32_t> ends = {items[0].packed_end, items[2].packed_end};
  const std::vector<int32_t> vEnds = {items[0].v_raw_begin, items[2].v_raw_begin};
  auto position = [&](int i) { return items[i].packed_begin + static_cast<int32_t>(seen(programs[i])) - 1; };
  const std::vector<int32_t> positions = {position(0), position(2)};
  const auto pageStride = static_cast<uint64_t>((lines + kGap) * 64);
  auto bits = [](float value) { return uint64_t(std::bit_cast<uint32_t>(value)); };
  const std::vector<uint64_t> args = {word(items.data()),   word(q.data()),
                                      word(offsets.data()), uint64_t(request.dk),
                                      word(base),           kHeads * pageStride,
                                      pageStride,           word(kTable),
                                      word(tail.data()),    word(tail.data()),
                                      uint64_t(kCap),       uint64_t(kCap),
                                      uint64_t(kHeads),     word(ends.data()),
                                      word(vEnds.data()),   word(positions.data()),
                                      bits(0.125f),         uint64_t(1) << 40,
                                      bits(3.0f),           word(o.data()),
                                      word(lse.data()),     2};
  ASSERT_EQ(args.size(), size_t(KVQ_ATTEND_ARGS));
  for (int64_t i = 0; i < static_cast<int64_t>(items.size()); ++i) {
    const int64_t id[3] = {i, 0, 0};
    ASSERT_EQ(kernel->function(args.data(), id), 0);
  }
}

// The tiles of a program: of the schedule's length where every row sees all keys, then, if some keys have their V still
// in the tail, short ones. Keys of that kind come last, and the tile in which they begin is visited twice.
std::vector<Tile> Attend::visited(const Program &program) const {
  const int64_t committed = program.tokens - lagging(), tile = request.pageTokens / chosen.tiles;
  const int64_t rare = request.lag && !request.window ? kShortTile : tile;
  const int64_t whole = std::min(committed, seen(program)) / tile * tile;
  std::vector<Tile> tiles;
  for (int64_t at = 0; at < whole; at += tile)
    tiles.push_back({at, tile});
  for (int64_t at = whole; at < committed; at += rare)
    tiles.push_back({at, rare});
  for (int64_t at = committed / kShortTile * kShortTile; request.lag && at < program.tokens; at += kShortTile)
    tiles.push_back({at, kShortTile});
  return tiles;
}

std::vector<Line> Attend::expected() const {
  std::vector<Line> result;
  auto bring = [&](PageOf page, int64_t from, int64_t to) {
    for (int64_t line = from; line < to; ++line)
      if (result.empty() || result.back() != pageAt(page, line))
        result.push_back(pageAt(page, line));
  };
  for (size_t i = 0; i < programs.size(); ++i) {
    const auto [first, tokens] = programs[i];
    const int64_t pages = (tokens - 1) / request.pageTokens + 1;
    for (const Tile tile : visited(programs[i])) {
      const int64_t at = tile.begin / request.pageTokens, tiles = request.pageTokens / tile.tokens;
      PageOf own = {first.entry + at, first.head};
      PageOf next = at + 1 < pages ? PageOf{own.entry + 1, own.head} : following(i);
      if (isLong())
        bring(own, kNearLines, lines);
      // The tile's share, of which a line that two tiles share is the last of one and the first of the other.
      const int64_t begin = tile.begin % request.pageTokens * lines / request.pageTokens;
      bring(next, begin, isLong() ? kNearLines : begin + (lines + tiles - 1) / tiles);
    }
  }
  return result;
}

class Prefetch : public testing::TestWithParam<std::tuple<PrefetchCase, const mlir::kvq::cpu::CpuLevel *>> {};
INSTANTIATE_TEST_SUITE_P(Kernels, Prefetch,
                         testing::Combine(testing::ValuesIn(kCases), testing::ValuesIn(hostLevels())),
                         [](const auto &info) {
                           return std::string(std::get<0>(info.param).name) + "_" +
                                  levelName({std::get<1>(info.param), info.index});
                         });

// The page that follows in the table and the first one of the following program; each line once, or twice where a tile
// is visited twice, in order, of no other page and nothing behind one, and before it is read.
TEST_P(Prefetch, kernels_bring_in_every_line_of_the_next_page_once_and_in_order) {
  const auto &[chosen, level] = GetParam();
  Attend attend(chosen, level);
  attend.run();
  const std::vector<Line> expected = attend.expected();
  EXPECT_EQ(attend.outside, std::vector<Line>{});
  for (Line line : attend.late)
    EXPECT_TRUE(attend.mayBeLate(line)) << "block and head " << line.first << ", line " << line.second;
  ASSERT_EQ(attend.prefetched.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_EQ(attend.prefetched[i], expected[i]) << "the prefetch number " << i;
  const bool twice = std::set<Line>(expected.begin(), expected.end()).size() < expected.size();
  EXPECT_EQ(twice, attend.visitsTwice());
  for (const Program &program : attend.programs)
    EXPECT_TRUE(attend.read.contains(attend.pageAt(program.first, 0)));
}

} // namespace
