// SPDX-License-Identifier: Apache-2.0
//
// What the reference kernels share: elements of tensors, one side of a page, rows of the tail. Everything is read and
// written one value at a time, by Layout::address of whatever profile; nothing here is meant to be fast.
#pragma once

#include "runtime/format/problem.h"
#include "runtime/reference/numerics.h"

#include <cstring>
#include <vector>

namespace kvq::reference {

template <typename T> T *pointer(const uint64_t *args, int index) { return reinterpret_cast<T *>(args[index]); }
inline int64_t integer(const uint64_t *args, int index) { return static_cast<int64_t>(args[index]); }

inline float loadElement(const void *base, int64_t index, ElementType type) {
  if (type == ElementType::F32)
    return static_cast<const float *>(base)[index];
  const uint16_t bits = static_cast<const uint16_t *>(base)[index];
  return type == ElementType::BF16 ? f32FromBf16(bits) : f32FromF16(bits);
}

inline void storeElement(void *base, int64_t index, ElementType type, float value) {
  if (type == ElementType::F32)
    static_cast<float *>(base)[index] = value;
  else
    static_cast<uint16_t *>(base)[index] = type == ElementType::BF16 ? bf16FromF32(value) : f16FromF32(value);
}

// tail_c1: K's or V's tail of all slots, [slot][head][rows][D].
struct TailView {
  int64_t heads, cap, rows;
  int headDim;
  // Index of the first element of a token's row. The token is a body index, negative for a kept one.
  int64_t row(int64_t slot, int64_t head, int64_t token) const {
    return ((slot * heads + head) * rows + (token < 0 ? rows + token : token % cap)) * headDim;
  }
};

// One plane of a section: some bits of each code. In every profile an address bit is one index bit and a loop belongs
// to one dim, so what token and channel contribute to an address adds up. Layout::address itself costs some 100 ns, too
// much for each element of a long context.
struct PlaneView {
  int bits, shift; // in a code: bits shift .. shift + bits - 1
  int64_t begin;   // bytes from the section's begin
  std::vector<int64_t> tokenAddress, channelAddress;

  PlaneView(const SectionLayout &section, size_t plane)
      : bits(section.planes[plane].bits), shift(section.planeShift(plane)), begin(section.planeOffset(plane)) {
    const Layout &map = section.planes[plane].map;
    for (int t = 0; t < map.extent(Dim::Token); ++t)
      tokenAddress.push_back(map.address(t, 0));
    for (int c = 0; c < map.extent(Dim::Channel); ++c)
      channelAddress.push_back(map.address(0, c));
  }

  int mask() const { return (1 << bits) - 1; }
  // layout_c2: the field's first bit, counted from the section's begin. A field never crosses a byte: 8 is a multiple
  // of every plane's width.
  int64_t bitAddress(int64_t token, int64_t channel) const {
    return begin * 8 + (tokenAddress[token] + channelAddress[channel]) * bits;
  }
};

// K or V of a request: its format, its layout and where it stands in a page.
struct SideView {
  SideFormat format;
  int pageTokens, headDim;
  int64_t codes, scales, minima;
  std::vector<PlaneView> planes;

  SideView(const KernelRequest &request, Side side) : SideView(request, side, request.profile) {}
  SideView(const KernelRequest &request, Side side, Profile profile)
      : format(side == Side::K ? request.pair.k : request.pair.v), pageTokens(request.pageTokens),
        headDim(side == Side::K ? request.dk : request.dv) {
    const SectionLayout layout = makeSectionLayout(profile, side, format.bits, pageTokens, headDim);
    for (size_t plane = 0; plane < layout.planes.size(); ++plane)
      planes.emplace_back(layout, plane);
    const PageMap map = pageMap(request.pair, pageTokens, request.dk, request.dv);
    codes = side == Side::K ? map.kCodes : map.vCodes;
    scales = side == Side::K ? map.kScale : map.vScale;
    minima = side == Side::K ? map.kMin : map.vMin;
  }

  // page_c4.
  static uint8_t *page(uint8_t *pool, int64_t blockStride, int64_t headStride, int64_t block, int64_t head) {
    return pool + block * blockStride + head * headStride;
  }

  int code(const uint8_t *page, int64_t token, int64_t channel) const {
    int code = 0;
    for (const PlaneView &plane : planes) {
      const int64_t bit = plane.bitAddress(token, channel);
      code |= (page[codes + bit / 8] >> bit % 8 & plane.mask()) << plane.shift;
    }
    return code;
  }
  void setCode(uint8_t *page, int64_t token, int64_t channel, int value) const {
    for (const PlaneView &plane : planes) {
      const int64_t bit = plane.bitAddress(token, channel);
      uint8_t &byte = page[codes + bit / 8];
      const int field = value >> plane.shift & plane.mask();
      byte = static_cast<uint8_t>((byte & ~(plane.mask() << bit % 8)) | field << bit % 8);
    }
  }

  uint16_t half(const uint8_t *page, int64_t section, int64_t token, int64_t channel) const {
    uint16_t value;
    std::memcpy(&value, page + section + 2 * groupIndex(format, pageTokens, headDim, token, channel), sizeof value);
    return value;
  }
  void setHalf(uint8_t *page, int64_t section, int64_t token, int64_t channel, uint16_t value) const {
    std::memcpy(page + section + 2 * groupIndex(format, pageTokens, headDim, token, channel), &value, sizeof value);
  }

  // dequantize_c1: a multiplication, then an addition.
  float value(const uint8_t *page, int64_t token, int64_t channel) const {
    const float scale = f32FromF16(half(page, scales, token, channel));
    const float minimum = f32FromF16(half(page, minima, token, channel));
    const float product = static_cast<float>(code(page, token, channel)) * scale;
    return product + minimum;
  }
};

int32_t append(const KernelRequest &request, const uint64_t *args, const int64_t *programId);
int32_t quantize(const KernelRequest &request, Side side, const uint64_t *args, const int64_t *programId);
int32_t dequantize(const KernelRequest &request, Side side, const uint64_t *args, const int64_t *programId);
int32_t convert(const KernelRequest &request, Side side, const uint64_t *args, const int64_t *programId);
int32_t attend(const KernelRequest &request, const uint64_t *args, const int64_t *programId);
int32_t merge(const KernelRequest &request, const uint64_t *args, const int64_t *programId);

} // namespace kvq::reference
