// SPDX-License-Identifier: Apache-2.0
//
// A cache as docs/format-spec.md describes it, without pages, tail rows or steps: per head it keeps every token as it
// came and, from the moment it is committed, as what its codes give back. Written from the spec, in plain loops; it
// shares no code with the runtime.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace kvq_test {

struct ModelSide {
  int bits;
  bool perChannel;
  int group;
};

enum class ModelRule { Block, Sliding, Flush };

// Positions and frontiers are body indices (commit_c7) unless a name says otherwise.
struct ModelFormat {
  ModelSide k, v;
  int window;
  ModelRule rule = ModelRule::Block;
  int keep = 0;

  int64_t largestGroup() const { return std::max(k.perChannel ? k.group : 0, v.perChannel ? v.group : 0); }
  int64_t commitGroup() const { return std::max<int64_t>(32, largestGroup()); }
  // commit_c2, commit_c3, commit_c8.
  int64_t kFrontier(int64_t n) const {
    n = std::max<int64_t>(n, 0);
    if (rule == ModelRule::Block)
      return std::max<int64_t>(0, n - window) / commitGroup() * commitGroup();
    const int64_t together = std::max(window, 1);
    return n / together * together;
  }
  int64_t vFrontier(int64_t n) const {
    return rule == ModelRule::Sliding ? std::max<int64_t>(0, n - window) : kFrontier(n);
  }
  // crop_c1.
  int64_t cutUnit(bool isK) const {
    if (rule == ModelRule::Block)
      return commitGroup();
    if (rule == ModelRule::Sliding)
      return isK ? k.group : 1;
    return std::max<int64_t>(1, largestGroup());
  }
  // tail_c1.
  int64_t cap() const {
    const int64_t tokens = rule == ModelRule::Block ? window + commitGroup() + 32 : std::max(window, 1) + 32;
    return (tokens + 15) / 16 * 16;
  }
};

// What the model does with scores: window_c1, attention_c11. 0: no window, no cap.
struct ModelAttention {
  double scale = 0.25;
  int64_t window = 0;
  double scoreCap = 0;
};

// quantize_c2 and dequantize_c1 on `count` values that lie `stride` apart.
inline void roundTrip(float *values, int count, int64_t stride, int bits) {
  float mn = values[0], mx = values[0];
  for (int i = 1; i < count; ++i) {
    mn = std::min(mn, values[i * stride]);
    mx = std::max(mx, values[i * stride]);
  }
  const float levels = float((1 << bits) - 1);
  const float range = (mx + 0.0f) - (mn + 0.0f);
  const auto s = static_cast<float>(static_cast<_Float16>(range / levels));
  const auto m = static_cast<float>(static_cast<_Float16>(mn + 0.0f));
  const float inv = s == 0.0f ? 0.0f : 1.0f / s;
  for (int i = 0; i < count; ++i) {
    const float shifted = values[i * stride] - m;
    const float q = std::clamp(std::nearbyint(shifted * inv), 0.0f, levels);
    const float scaled = q * s;
    values[i * stride] = scaled + m;
  }
}

inline float roundBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline float roundF16(float value) { return static_cast<float>(static_cast<_Float16>(value)); }

// K or V of one head of one sequence and layer: sections 5 and 8.
struct ModelRows {
  int channels = 0;
  std::vector<float> rows;   // of all tokens: as they came, or as they were thawed
  std::vector<float> packed; // of body tokens below the frontier: what their codes give back
  int64_t frontier = 0;      // F
  int64_t ring = 0;          // r
  int64_t before = 0;        // F at the begin of the last step

  int64_t tokens() const { return static_cast<int64_t>(rows.size()) / channels; }

  // The step that brought the rows is over. `rule` is the frontier that the rule gives.
  void commit(const ModelFormat &format, const ModelSide &side, int64_t rule) {
    before = frontier;
    frontier = std::max(frontier, rule);
    ring = std::max(ring, tokens() - format.keep - format.cap());
    if (frontier > before)
      packed.insert(packed.end(), rows.begin() + (format.keep + before) * channels,
                    rows.begin() + (format.keep + frontier) * channels);
    const int64_t step = side.perChannel ? side.group : 1;
    for (int64_t token = before; token < frontier; token += step)
      for (int c = 0; c < channels; c += side.perChannel ? 1 : side.group)
        roundTrip(&packed[token * channels + c], side.group, side.perChannel ? channels : 1, side.bits);
  }
  // crop_c1: the frontier of a crop to `m` body tokens.
  int64_t croppedFrontier(int64_t rule, int64_t unit, int64_t m) const {
    const int64_t x = std::min(frontier, std::max(rule, (ring + unit - 1) / unit * unit));
    return x > m ? m / unit * unit : x;
  }
  // crop_c2: cuts to `all` tokens, of which `m` are body tokens; returns how many were thawed.
  template <typename Round> int64_t cut(int keep, int64_t all, int64_t m, int64_t to, const Round &round) {
    const int64_t end = std::max(to, std::min(ring, m));
    for (int64_t i = to * channels; i < end * channels; ++i)
      rows[keep * channels + i] = round(packed[i]);
    frontier = before = to;
    ring = std::min(ring, to);
    rows.resize(all * channels);
    packed.resize(to * channels);
    return end - to;
  }
  // What a query sees of a token (its number in the sequence) in the state of a frontier.
  const float *value(const ModelFormat &format, int64_t token, int64_t stateFrontier) const {
    const bool isPacked = token >= format.keep && token - format.keep < stateFrontier;
    return isPacked ? &packed[(token - format.keep) * channels] : &rows[token * channels];
  }
};

// One KV head of one sequence and layer.
struct ModelHead {
  ModelRows k, v;
  int64_t stepBegin = 0; // tokens before the last step

  // Rows of `added` new tokens stand at the end of k.rows and v.rows.
  void commit(const ModelFormat &format, int64_t added) {
    stepBegin = k.tokens() - added;
    k.commit(format, format.k, format.kFrontier(k.tokens() - format.keep));
    v.commit(format, format.v, format.vFrontier(v.tokens() - format.keep));
  }
  // `firstPageBegin`: the first body token whose page was not dropped. Returns the number of thawed tokens.
  template <typename Round>
  int64_t crop(const ModelFormat &format, int64_t all, int64_t firstPageBegin, const Round &round) {
    if (all == k.tokens())
      return 0;
    const int64_t m = std::max<int64_t>(0, all - format.keep);
    const int64_t fk = k.croppedFrontier(std::max(format.kFrontier(m), firstPageBegin), format.cutUnit(true), m);
    const int64_t fv = v.croppedFrontier(std::max(format.vFrontier(m), firstPageBegin), format.cutUnit(false), m);
    const int64_t thawedK = k.cut(format.keep, all, m, fk, round);
    return std::max(thawedK, v.cut(format.keep, all, m, std::min(fv, fk), round));
  }
};

// attention_c1 for query `position` (its number in the sequence): writes v.channels values and returns lse. `sink` is
// -inf where there is none. `pastOnly`: prefill_c2's part over the tokens before the step.
inline double modelAttend(const ModelFormat &format, const ModelAttention &attention, const ModelHead &head,
                          int64_t position, bool pastOnly, const float *q, double sink, std::vector<double> &out) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  const int64_t t = position - format.keep;
  const int64_t fK = std::max(head.k.before, pastOnly ? 0 : format.kFrontier(t));
  const int64_t fV = std::max(head.v.before, pastOnly ? 0 : format.vFrontier(t));
  const int64_t begin = attention.window > 0 ? std::max<int64_t>(0, position - attention.window + 1) : 0;
  const int64_t end = pastOnly ? head.stepBegin : position + 1;
  std::vector<double> scores;
  double top = sink;
  for (int64_t j = begin; j < end; ++j) {
    const float *key = head.k.value(format, j, fK);
    double dot = 0;
    for (int c = 0; c < head.k.channels; ++c)
      dot += double(q[c]) * key[c];
    dot *= attention.scale;
    scores.push_back(attention.scoreCap > 0 ? attention.scoreCap * std::tanh(dot / attention.scoreCap) : dot);
    top = std::max(top, scores.back());
  }
  out.assign(head.v.channels, 0.0);
  if (top == kNone)
    return kNone;
  double sum = std::exp(sink - top);
  for (double score : scores)
    sum += std::exp(score - top);
  for (int64_t j = begin; j < end; ++j) {
    const float *value = head.v.value(format, j, fV);
    for (int c = 0; c < head.v.channels; ++c)
      out[c] += std::exp(scores[j - begin] - top) / sum * value[c];
  }
  return top + std::log(sum);
}

} // namespace kvq_test
