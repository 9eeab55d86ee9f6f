// SPDX-License-Identifier: Apache-2.0
//
// A cache as docs/format-spec.md describes it, without pages, ring or steps: it keeps every token as it came and
// answers a query by quantizing and dequantizing whatever the query's state says. Written from the spec, in plain
// loops; it shares no code with the runtime.
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

struct ModelFormat {
  ModelSide k, v;
  int window;
  bool sliding;

  int64_t commitGroup() const { return std::max({32, k.perChannel ? k.group : 0, v.perChannel ? v.group : 0}); }
  int64_t kFrontier(int64_t n) const {
    return sliding ? n / window * window : std::max<int64_t>(0, n - window) / commitGroup() * commitGroup();
  }
  int64_t vFrontier(int64_t n) const { return sliding ? std::max<int64_t>(0, n - window) : kFrontier(n); }
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

// One head of one sequence and layer: rows of K or V.
struct ModelRows {
  int channels = 0;
  std::vector<float> rows;
  int64_t tokens() const { return static_cast<int64_t>(rows.size()) / channels; }

  // All rows, with those below `frontier` quantized and dequantized.
  std::vector<float> stateAt(const ModelSide &side, int64_t frontier) const {
    std::vector<float> state = rows;
    if (side.perChannel) {
      for (int64_t token = 0; token < frontier; token += side.group)
        for (int c = 0; c < channels; ++c)
          roundTrip(&state[token * channels + c], side.group, channels, side.bits);
    } else {
      for (int64_t token = 0; token < frontier; ++token)
        for (int c = 0; c < channels; c += side.group)
          roundTrip(&state[token * channels + c], side.group, 1, side.bits);
    }
    return state;
  }
};

// attention_c1 for the query at position t: writes v.channels values and returns lse.
inline double modelAttend(const ModelFormat &format, const ModelRows &k, const ModelRows &v, int64_t t, const float *q,
                          double scale, std::vector<double> &out) {
  const std::vector<float> keys = k.stateAt(format.k, format.kFrontier(t));
  const std::vector<float> values = v.stateAt(format.v, format.vFrontier(t));
  std::vector<double> scores(t + 1);
  double top = -std::numeric_limits<double>::infinity();
  for (int64_t j = 0; j <= t; ++j) {
    double dot = 0;
    for (int c = 0; c < k.channels; ++c)
      dot += double(q[c]) * keys[j * k.channels + c];
    scores[j] = dot * scale;
    top = std::max(top, scores[j]);
  }
  double sum = 0;
  for (double score : scores)
    sum += std::exp(score - top);
  out.assign(v.channels, 0.0);
  for (int64_t j = 0; j <= t; ++j)
    for (int c = 0; c < v.channels; ++c)
      out[c] += std::exp(scores[j] - top) / sum * values[j * v.channels + c];
  return top + std::log(sum);
}

} // namespace kvq_test
