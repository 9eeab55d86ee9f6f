// SPDX-License-Identifier: Apache-2.0
//
// A sequence as bytes and back: format-spec snapshot_c1, snapshot_c2. Numbers are little endian, as the pages are.
//
//     8 bytes    'KVQSNAP' and the version
//     8 bytes    length of what follows the checksum
//     32 bytes   SHA-256 of what follows
//     4 bytes    length of the text, the text: for which cache the snapshot is
//     7 x 8      length, FK, FV, rK, rV, first page, number of blocks
//     per layer  the blocks, each the pages of its KV heads in order, the tail of K, the tail of V
#include "runtime/cache/cache.h"
#include "runtime/cache/page_conversion.h"
#include "runtime/format/sha256.h"

#include <cstring>

namespace kvq {

static constexpr char kMagic[] = "KVQSNAP";
static constexpr uint8_t kVersion = 1;
static constexpr int64_t kHeaderBytes = 8 + 8 + 32;
static constexpr int kNumbers = 7;

std::string Cache::snapshotText(Profile profile) const {
  CacheFormat format = config_.format;
  format.pair = resolve(format.pair, config_.dk, config_.dv); // text_c9
  // snapshot_c3: texts of `vnni` are as they were before there were others.
  std::string layouts;
  if (profile != Profile::Vnni) {
    const auto layout = [&](Side side, int bits, int headDim) {
      return makeSectionLayout(profile, side, bits, config_.pageTokens, headDim).toText();
    };
    layouts = " profile=" + std::string(toText(profile)) + " k=" + layout(Side::K, format.pair.k.bits, config_.dk) +
              " v=" + layout(Side::V, format.pair.v.bits, config_.dv);
  }
  return toText(format) + " layers=" + std::to_string(config_.layers) + " kv_heads=" + std::to_string(config_.kvHeads) +
         " dk=" + std::to_string(config_.dk) + " dv=" + std::to_string(config_.dv) +
         " type=" + std::string(toText(config_.type)) + " page_tokens=" + std::to_string(config_.pageTokens) +
         " attention_window=" + std::to_string(config_.attentionWindow) + layouts;
}

int64_t Cache::snapshotPayload(std::string_view text, size_t blocks) const {
  const int64_t layer = int64_t(blocks) * geometry_.blockBytes + geometry_.tailKBytes + geometry_.tailVBytes;
  return 4 + static_cast<int64_t>(text.size()) + kNumbers * 8 + config_.layers * layer;
}

Result<int64_t> Cache::snapshotBytes(int sequence) const {
  KVQ_RETURN_IF_ERROR(checkSequence(sequence));
  return kHeaderBytes + snapshotPayload(snapshotText(config_.profile), tables_.of(sequence).size());
}

static Digest digestOf(std::span<const uint8_t> payload) {
  return sha256({reinterpret_cast<const char *>(payload.data()), payload.size()});
}

Status Cache::snapshot(int id, std::span<uint8_t> out) {
  KVQ_RETURN_IF_ERROR(checkChangeable(id));
  const Sequence &sequence = sequences_[id];
  const auto blocks = tables_.of(id);
  const std::string text = snapshotText(config_.profile);
  const int64_t payload = snapshotPayload(text, blocks.size());
  if (static_cast<int64_t>(out.size()) < kHeaderBytes + payload)
    return {Code::InvalidArgument, "a buffer of " + std::to_string(out.size()) + " bytes is too small: the snapshot " +
                                       "needs " + std::to_string(kHeaderBytes + payload)};
  uint8_t *at = out.data() + kHeaderBytes;
  const auto putFrom = [&](DeviceAddress from, int64_t bytes) {
    memory_.copyOut(at, from, bytes);
    at += bytes;
  };
  const auto put = [&at](const void *data, int64_t bytes) {
    std::memcpy(at, data, bytes);
    at += bytes;
  };
  const auto textBytes = static_cast<uint32_t>(text.size());
  put(&textBytes, 4);
  put(text.data(), textBytes);
  const int64_t numbers[kNumbers] = {sequence.length, sequence.frontier.k, sequence.frontier.v,   sequence.ring.k,
                                     sequence.ring.v, sequence.firstPage,  int64_t(blocks.size())};
  put(numbers, sizeof(numbers));
  for (int layer = 0; layer < config_.layers; ++layer) {
    for (int32_t block : blocks)
      for (int head = 0; head < config_.kvHeads; ++head)
        putFrom(page(layer, block, head), geometry_.pageBytes);
    putFrom(tailSlot(layer, true, id), geometry_.tailKBytes);
    putFrom(tailSlot(layer, false, id), geometry_.tailVBytes);
  }
  KVQ_RETURN_IF_ERROR(memory_.wait());
  at = out.data();
  put(kMagic, 7);
  put(&kVersion, 1);
  put(&payload, 8);
  const Digest digest = digestOf(out.subspan(kHeaderBytes, payload));
  put(digest.data(), sizeof(digest));
  return Status::ok();
}

static Status corrupt(const std::string &what) {
  return {Code::Corrupt, "the snapshot " + what + ": take another copy of it, or prefill again"};
}

// The payload, whole and unchanged.
static Result<std::span<const uint8_t>> checkHeader(std::span<const uint8_t> data) {
  if (static_cast<int64_t>(data.size()) < kHeaderBytes || std::memcmp(data.data(), kMagic, 7) != 0)
    return corrupt("does not begin with KVQSNAP and a header");
  if (data[7] != kVersion)
    return Status(Code::Corrupt, "the snapshot has version " + std::to_string(data[7]) +
                                     " where this kvq reads version " + std::to_string(kVersion) +
                                     ": read it with the kvq that wrote it, or prefill again");
  uint64_t payload = 0;
  std::memcpy(&payload, data.data() + 8, 8);
  if (payload != data.size() - kHeaderBytes)
    return corrupt("has " + std::to_string(data.size() - kHeaderBytes) + " bytes behind its header instead of " +
                   std::to_string(payload));
  const std::span<const uint8_t> body = data.subspan(kHeaderBytes);
  if (std::memcmp(digestOf(body).data(), data.data() + 16, sizeof(Digest)) != 0)
    return corrupt("does not match its checksum");
  return body;
}

// A checksum is no proof of good intent: numbers that no cache writes are refused before they index anything.
static bool isConsistentSide(int64_t frontier, int64_t ring, int64_t rule, int64_t unit, int64_t body, int cap) {
  return ring >= 0 && ring <= frontier && body - ring <= cap && frontier >= rule && frontier <= body &&
         frontier % unit == 0;
}

static bool isConsistent(const SequenceState &state, size_t blocks, const CacheConfig &config,
                         const Geometry &geometry) {
  if (state.length < 0 || state.length >= int64_t(1) << 31)
    return false;
  const int64_t body = std::max<int64_t>(0, state.length - config.format.keep), page = config.pageTokens;
  const Frontier rule = bodyFrontier(config.format, body), unit = cutUnits(config.format);
  if (!isConsistentSide(state.frontier.k, state.ring.k, rule.k, unit.k, body, geometry.cap) ||
      !isConsistentSide(state.frontier.v, state.ring.v, rule.v, unit.v, body, geometry.cap))
    return false;
  // Kernels rely on it that V is behind K, and under `sliding` alone.
  const bool mayDiffer = config.format.rule == CommitRule::Sliding;
  if (state.frontier.v > state.frontier.k || (state.frontier.v < state.frontier.k && !mayDiffer))
    return false;
  // window_c2, and crop_c4: the next query finds all that its window shows.
  const int64_t least = geometry.firstPage(body, state.frontier);
  const int64_t most = config.attentionWindow > 0 ? std::max<int64_t>(0, body + 1 - config.attentionWindow) / page : 0;
  return state.firstPage >= least && state.firstPage <= most &&
         (std::max(state.frontier.k, state.frontier.v) + page - 1) / page - state.firstPage ==
             static_cast<int64_t>(blocks);
}

// snapshot_c3: which profile the pages of such a snapshot have, if it restores into this cache.
Result<Profile> Cache::snapshotProfile(std::string_view text) const {
  for (Profile profile : kAllProfiles)
    if (checkProfile(profile, config_.format.pair).isOk() && text == snapshotText(profile))
      return profile;
  return Status(Code::InvalidArgument, "the snapshot is for a cache \"" + std::string(text) + "\" and not for \"" +
                                           snapshotText(config_.profile) +
                                           "\": restore it into a cache like the one it was taken from");
}

// Pages and tails of all layers, as a snapshot has them, to where a sequence's are.
Status Cache::restoreLayers(int slot, const uint8_t *from, PageConversion *conversion) {
  const auto blocks = tables_.of(slot);
  const auto get = [&](DeviceAddress to, int64_t bytes) {
    memory_.copyIn(to, from, bytes);
    from += bytes;
  };
  if (conversion) {
    conversion->setBlocks(blocks);
    for (int32_t block : blocks)
      clearBlock(block); // between the sections
  }
  for (int layer = 0; layer < config_.layers; ++layer) {
    if (conversion) {
      KVQ_RETURN_IF_ERROR(conversion->convert(from, pages(layer)));
      from += static_cast<int64_t>(blocks.size()) * geometry_.blockBytes;
    } else {
      for (int32_t block : blocks)
        for (int head = 0; head < config_.kvHeads; ++head)
          get(page(layer, block, head), geometry_.pageBytes);
    }
    get(tailSlot(layer, true, slot), geometry_.tailKBytes);
    get(tailSlot(layer, false, slot), geometry_.tailVBytes);
  }
  return Status::ok();
}

Result<int> Cache::restore(std::span<const uint8_t> data) {
  auto checked = checkHeader(data);
  if (!checked.isOk())
    return checked.status();
  const std::span<const uint8_t> body = checked.value();
  uint32_t textBytes = 0;
  if (body.size() >= 4)
    std::memcpy(&textBytes, body.data(), 4);
  if (body.size() < 4 + uint64_t(textBytes) + kNumbers * 8)
    return corrupt("is shorter than its own header says");
  const std::string_view text(reinterpret_cast<const char *>(body.data()) + 4, textBytes);
  const auto profile = snapshotProfile(text);
  KVQ_RETURN_IF_ERROR(profile.status());
  const uint8_t *at = body.data() + 4 + textBytes;
  int64_t numbers[kNumbers];
  std::memcpy(numbers, at, sizeof(numbers));
  at += sizeof(numbers);
  SequenceState sequence;
  sequence.length = numbers[0];
  sequence.frontier = {numbers[1], numbers[2]};
  sequence.ring = {numbers[3], numbers[4]};
  sequence.firstPage = numbers[5];
  const int64_t blocks = numbers[6];
  if (blocks < 0 || blocks > static_cast<int64_t>(body.size()) / geometry_.blockBytes ||
      static_cast<int64_t>(body.size()) != snapshotPayload(text, blocks) ||
      !isConsistent(sequence, blocks, config_, geometry_))
    return corrupt("holds numbers that contradict each other");
  auto id = freeSlot();
  if (!id.isOk())
    return id;
  if (blocks > pool_.free())
    return Status(Code::ResourceExhausted, "the snapshot needs " + std::to_string(blocks) + " blocks but " +
                                               std::to_string(pool_.free()) +
                                               " are free: remove sequences or kvq_cache_grow");
  PageConversion conversion(*device_, memory_, config_, geometry_);
  const bool isConverted = profile.value() != config_.profile && blocks > 0;
  if (isConverted)
    KVQ_RETURN_IF_ERROR(conversion.prepare(profile.value(), blocks));
  KVQ_RETURN_IF_ERROR(tables_.reserve(id.value(), blocks));
  for (int64_t i = 0; i < blocks; ++i)
    tables_.at(id.value(), i) = pool_.take(i > 0 ? tables_.get(id.value(), i - 1) : BlockPool::kNone);
  tables_.resize(id.value(), blocks);
  const Status restored = restoreLayers(id.value(), at, isConverted ? &conversion : nullptr);
  const Status done = memory_.wait(); // the bytes go
  if (!restored.isOk() || !done.isOk()) {
    release(id.value(), 0);
    return restored.isOk() ? done : restored;
  }
  occupy(id.value(), sequence);
  return id;
}

} // namespace kvq
