// SPDX-License-Identifier: Apache-2.0
//
// Forking a sequence and taking it back: format-spec section 8.
#include "runtime/cache/step.h"

#include <algorithm>

namespace kvq {

Result<int> Cache::forkSequence(int sequence) {
  KVQ_RETURN_IF_ERROR(checkChangeable(sequence));
  auto id = freeSlot();
  if (!id.isOk())
    return id;
  const auto count = static_cast<int64_t>(tables_.of(sequence).size());
  KVQ_RETURN_IF_ERROR(tables_.reserve(id.value(), count));
  const auto blocks = tables_.of(sequence);
  for (int64_t i = 0; i < count; ++i)
    tables_.at(id.value(), i) = blocks[i];
  tables_.resize(id.value(), count);
  for (int32_t block : blocks)
    pool_.share(block);
  occupy(id.value(), sequences_[sequence]);
  for (bool isK : {true, false})
    memory_.copyRows(tailSlot(0, isK, id.value()), geometry_.tailStride(), tailSlot(0, isK, sequence),
                     geometry_.tailStride(), isK ? geometry_.tailKBytes : geometry_.tailVBytes, config_.layers);
  return id;
}

// What crop_c1 and crop_c2 say of one side: the new frontier, and the body tokens to thaw.
namespace {
struct Cut {
  int64_t frontier, thawEnd;
  int64_t thawed() const { return std::max<int64_t>(0, thawEnd - frontier); }
};
} // namespace

static Cut cutSide(int64_t packed, int64_t ring, int64_t wanted, int64_t unit, int64_t length) {
  const int64_t inRing = (ring + unit - 1) / unit * unit;
  int64_t x = std::min(packed, std::max(wanted, inRing));
  if (x > length)
    x = length / unit * unit;
  return {x, std::min(ring, length)};
}

// Puts the dequantized values of body tokens [from, to) into the ring.
Status Cache::thaw(int sequence, int64_t from, int64_t to, bool isK, const Scratch &dense) {
  const int64_t row = rowBytes(isK), count = to - from;
  Tensor out;
  out.data = reinterpret_cast<void *>(dense.address());
  out.type = config_.type;
  out.tokens = count;
  out.tokenStride = isK ? config_.dk : config_.dv;
  out.headStride = count * out.tokenStride;
  for (int layer = 0; layer < config_.layers; ++layer) {
    KVQ_RETURN_IF_ERROR(dequantize(sequence, from, to, isK, layer, out));
    geometry_.forTailRuns(from, to, [&](int64_t position, int64_t tokens) {
      memory_.copyRows(tailSlot(layer, isK, sequence) + geometry_.tailRow(position) * row, geometry_.rows * row,
                       dense.address() + (position - from) * row, count * row, tokens * row, config_.kvHeads);
    });
  }
  return memory_.state();
}

int64_t leastLength(const SequenceState &state, const CacheConfig &config) {
  if (state.firstPage == 0)
    return 0;
  return state.firstPage * config.pageTokens + config.attentionWindow - 1 + config.format.keep;
}

static Status checkCrop(const SequenceState &state, const CacheConfig &config, int sequence, int64_t tokens) {
  const std::string name = "sequence " + std::to_string(sequence);
  if (tokens < 0 || tokens > state.length)
    return {Code::InvalidArgument, name + " has " + std::to_string(state.length) + " tokens and cannot be cropped to " +
                                       std::to_string(tokens) + ": give 0 to its length"};
  if (const int64_t least = leastLength(state, config); tokens < least && tokens > config.format.keep)
    return {Code::FailedPrecondition, name + " of " + std::to_string(state.length) + " tokens cannot be cropped to " +
                                          std::to_string(tokens) + ": pages behind the attention window of " +
                                          std::to_string(config.attentionWindow) + " were dropped, so at most " +
                                          std::to_string(std::max<int64_t>(0, state.length - least)) +
                                          " tokens can be taken back"};
  return Status::ok();
}

Result<int64_t> Cache::cropSequence(int id, int64_t tokens) {
  KVQ_RETURN_IF_ERROR(checkChangeable(id));
  Sequence &sequence = sequences_[id];
  KVQ_RETURN_IF_ERROR(checkCrop(sequence, config_, id, tokens));
  if (tokens == sequence.length)
    return int64_t(0);
  const int64_t body = std::max<int64_t>(0, tokens - config_.format.keep);
  const Frontier wanted = bodyFrontier(config_.format, body), unit = cutUnits(config_.format);
  const int64_t firstPage = body > 0 ? sequence.firstPage : 0, left = firstPage * config_.pageTokens;
  Cut k = cutSide(sequence.frontier.k, sequence.ring.k, std::max(wanted.k, left), unit.k, body);
  Cut v = cutSide(sequence.frontier.v, sequence.ring.v, std::max(wanted.v, left), unit.v, body);
  v.frontier = std::min(v.frontier, k.frontier); // kernels never see V ahead of K
  Scratch dense(memory_, "thawed tokens of a cache");
  for (bool isK : {true, false}) // all that can fail, before anything changes
    if (const int64_t thawed = (isK ? k : v).thawed(); thawed > 0) {
      KVQ_RETURN_IF_ERROR(kernel(isK ? CacheKernel::DequantizeK : CacheKernel::DequantizeV).status());
      KVQ_RETURN_IF_ERROR(dense.reserve(config_.kvHeads * thawed * rowBytes(isK)));
      KVQ_RETURN_IF_ERROR(reserveDequantize(thawed));
    }
  for (bool isK : {true, false})
    if (const Cut &cut = isK ? k : v; cut.thawed() > 0)
      KVQ_RETURN_IF_ERROR(thaw(id, cut.frontier, cut.thawEnd, isK, dense));

  sequence.length = tokens;
  sequence.frontier = {k.frontier, v.frontier};
  sequence.ring = {std::min(sequence.ring.k, k.frontier), std::min(sequence.ring.v, v.frontier)};
  const int64_t page = config_.pageTokens;
  const int64_t pages = (std::max(k.frontier, v.frontier) + page - 1) / page - firstPage;
  sequence.firstPage = firstPage;
  release(id, pages);
  return std::max(k.thawed(), v.thawed());
}

} // namespace kvq
