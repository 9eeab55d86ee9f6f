// SPDX-License-Identifier: Apache-2.0
// What the kernels under kernels/ compute, in plain C++ with f64 where they round differently on every machine, and
// with their own roundings where the results are exact. Called from kernel_references.py.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace {

constexpr int Channels = 64;

/// Rounds to the nearest half, ties to even, and returns its value.
double roundToHalf(double value) {
  if (value == 0 || !std::isfinite(value))
    return value;
  const int exponent = std::max(std::ilogb(value), -14) - 10; // of the last bit; subnormals share that of 2^-14
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, -exponent)), exponent);
  return std::abs(rounded) > 65504 ? std::copysign(std::numeric_limits<double>::infinity(), value) : rounded;
}

/// A row of 64 codes of 4 bits, the first in the lowest bits, as the kernel widens them: one rounding, to half.
void widen(double *row, const uint32_t *words, const double *scaleAndMinimum) {
  for (int channel = 0; channel < Channels; ++channel) {
    const unsigned code = words[channel / 8] >> channel % 8 * 4 & 15;
    row[channel] = roundToHalf(code * scaleAndMinimum[0] + scaleAndMinimum[1]);
  }
}

} // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

/// c [m][n] = a [m][k] b [k][n], and with absolute values of all factors into `absolute`.
EXPORTED void reference_gemm(const double *a, const double *b, double *c, double *absolute, int m, int n, int k) {
  for (int row = 0; row < m; ++row)
    for (int column = 0; column < n; ++column) {
      double sum = 0, positive = 0;
      for (int i = 0; i < k; ++i) {
        sum += a[row * k + i] * b[i * n + column];
        positive += std::abs(a[row * k + i] * b[i * n + column]);
      }
      c[row * n + column] = sum;
      absolute[row * n + column] = positive;
    }
}

EXPORTED void reference_reduce(const float *values, int count, double *sum, double *absolute, uint32_t *maximum,
                               uint32_t *negatives) {
  float largest = -std::numeric_limits<float>::infinity();
  *sum = *absolute = *negatives = 0;
  for (int i = 0; i < count; ++i) {
    *sum += values[i];
    *absolute += std::abs(values[i]);
    *negatives += values[i] < 0;
    largest = std::max(largest, values[i]);
  }
  uint32_t bits;
  std::memcpy(&bits, &largest, sizeof bits);
  *maximum = bits >> 31 ? ~bits : bits | 0x80000000u;
}

EXPORTED void reference_scan(const uint32_t *values, uint32_t *sums, int count) {
  uint32_t sum = 0;
  for (int i = 0; i < count; ++i)
    sums[i] = sum += values[i];
}

EXPORTED void reference_histogram(const uint8_t *values, int count, uint32_t *counters) {
  std::fill_n(counters, 256, 0);
  for (int i = 0; i < count; ++i)
    ++counters[values[i]];
}

EXPORTED void reference_transpose(const uint32_t *from, uint32_t *to, int rows, int columns) {
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column)
      to[column * rows + row] = from[row * columns + column];
}

/// Groups of 64 columns; words [rows][groups][2 * bits], scaleAndMinimum [rows][groups][2] as values of halves.
EXPORTED void reference_quantize(const float *values, uint32_t *words, double *scaleAndMinimum, int rows, int columns,
                                 int bits) {
  const int groups = (columns + Channels - 1) / Channels, levels = (1 << bits) - 1;
  for (int item = 0; item < rows * groups; ++item) {
    const int first = item % groups * Channels, count = std::min(Channels, columns - first);
    const float *group = values + item / groups * columns + first;
    const auto [low, high] = std::minmax_element(group, group + count);
    const float scale = static_cast<float>(roundToHalf((*high - *low) / static_cast<float>(levels)));
    const float minimum = static_cast<float>(roundToHalf(*low));
    uint32_t *packed = words + item * 2 * bits;
    std::fill_n(packed, 2 * bits, 0);
    for (int i = 0; i < count; ++i) {
      const float difference = group[i] - minimum;
      const float code = scale == 0 ? 0 : std::clamp<float>(std::nearbyint(difference / scale), 0, levels);
      packed[i * bits / 32] |= static_cast<uint32_t>(code) << i * bits % 32;
    }
    scaleAndMinimum[2 * item] = scale;
    scaleAndMinimum[2 * item + 1] = minimum;
  }
}

/// Attention of one query head q [64] over the tokens of one KV head: o [64], the base-2 logarithm of the sum of the
/// weights, and the largest sum of absolute products that made a score. words [tokens][8], parameters [tokens][2].
EXPORTED void reference_decode(const double *q, const uint32_t *kWords, const double *kParameters,
                               const uint32_t *vWords, const double *vParameters, int tokens, double scaleLog2,
                               double *o, double *logSum, double *absolute) {
  double row[Channels], maximum = -std::numeric_limits<double>::infinity(), sum = 0;
  std::fill_n(o, Channels, 0);
  *absolute = 0;
  for (int token = 0; token < tokens; ++token) {
    widen(row, kWords + token * Channels / 8, kParameters + 2 * token);
    double score = 0, positive = 0;
    for (int channel = 0; channel < Channels; ++channel) {
      score += q[channel] * row[channel] * scaleLog2;
      positive += std::abs(q[channel] * row[channel] * scaleLog2);
    }
    *absolute = std::max(*absolute, positive);
    const double old = maximum;
    maximum = std::max(maximum, score);
    const double factor = std::exp2(old - maximum), weight = std::exp2(score - maximum);
    sum = sum * factor + weight;
    widen(row, vWords + token * Channels / 8, vParameters + 2 * token);
    for (int channel = 0; channel < Channels; ++channel)
      o[channel] = o[channel] * factor + weight * row[channel];
  }
  for (int channel = 0; channel < Channels; ++channel)
    o[channel] = tokens ? o[channel] / sum : 0;
  *logSum = maximum + std::log2(sum);
}

/// Joins runs: parts [heads][splits][64] and statistics [heads][splits][2] (maximum, sum) to o [heads][64]; `absolute`
/// is the same with absolute values.
EXPORTED void reference_combine(const float *parts, const float *statistics, double *o, double *absolute, int heads,
                                int splits) {
  for (int head = 0; head < heads; ++head) {
    const float *statistic = statistics + head * splits * 2;
    double maximum = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int split = 0; split < splits; ++split)
      maximum = std::max<double>(maximum, statistic[2 * split]);
    for (int split = 0; split < splits; ++split)
      sum += std::exp2(statistic[2 * split] - maximum) * statistic[2 * split + 1];
    for (int channel = 0; channel < Channels; ++channel) {
      double total = 0, positive = 0;
      for (int split = 0; split < splits; ++split) {
        const double weight = std::exp2(statistic[2 * split] - maximum) / sum;
        const double part = parts[(head * splits + split) * Channels + channel];
        total += weight * part;
        positive += std::abs(weight * part);
      }
      o[head * Channels + channel] = total;
      absolute[head * Channels + channel] = positive;
    }
  }
}
