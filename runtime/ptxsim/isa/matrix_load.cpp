// SPDX-License-Identifier: Apache-2.0
//
// ldmatrix and stmatrix of 8x8 matrices of 16-bit elements (PTX ISA, "Warp-level matrix load instruction: ldmatrix").
// Lane 8 i + r gives the address of row r of matrix i. Lane l holds elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4;
// with .trans, of column l / 4. Addresses of other lanes are not looked at.
#include "runtime/ptxsim/isa/ordering.h"
#include "runtime/ptxsim/memory/shared_memory.h"

#include <type_traits>

namespace kvq::ptxsim {

namespace {

constexpr uint32_t rowLanes(int matrices) { return matrices == 4 ? kFull : (1u << 8 * matrices) - 1; }

// Pointers to the rows; null where a lane is inactive or its row is out of bounds.
template <Space space, int matrices>
void rowsOf(Warp &warp, const Op &op, uint32_t mask, const Intent &intent, uint8_t *(&rows)[kLanes]) {
  std::fill(std::begin(rows), std::end(rows), nullptr);
  const uint32_t lanes = mask & rowLanes(matrices);
  if (!lanes)
    return;
  Addresses addresses;
  readAddresses(warp, op, op.sources[0], lanes, addresses);
  Access made;
  access<space>(warp, op, lanes, addresses, 16, intent, made);
  forLanes(made.mask, [&](int lane) { rows[lane] = made.of(lane); });
}

template <Space space, int matrices, bool transposed> void loadMatrix(Warp &warp, const Op &op, uint32_t mask) {
  constexpr Intent kIntent{AccessKind::Read, true, false, "ldmatrix"};
  uint8_t *rows[kLanes];
  rowsOf<space, matrices>(warp, op, mask, kIntent, rows);
  for (int matrix = 0; matrix < matrices; ++matrix) {
    uint16_t values[8][8];
    for (int row = 0; row < 8; ++row)
      if (const uint8_t *from = rows[8 * matrix + row])
        std::memcpy(values[row], from, 16);
      else
        std::memset(values[row], 0, 16);
    uint32_t *to = warp.at<uint32_t>(op.results[matrix]);
    forLanes(mask, [&](int lane) {
      const int major = lane / 4, minor = 2 * (lane % 4);
      const uint32_t low = transposed ? values[minor][major] : values[major][minor];
      const uint32_t high = transposed ? values[minor + 1][major] : values[major][minor + 1];
      to[lane] = high << 16 | low;
    });
  }
}

template <Space space, int matrices, bool transposed> void storeMatrix(Warp &warp, const Op &op, uint32_t mask) {
  constexpr Intent kIntent{AccessKind::Write, false, true, "stmatrix"};
  uint8_t *rows[kLanes];
  rowsOf<space, matrices>(warp, op, mask, kIntent, rows);
  for (int matrix = 0; matrix < matrices; ++matrix) {
    const uint32_t *from = warp.at<uint32_t>(op.sources[1 + matrix]);
    forLanes(mask, [&](int lane) {
      const int major = lane / 4, minor = 2 * (lane % 4);
      for (int i = 0; i < 2; ++i) {
        const int row = transposed ? minor + i : major, column = transposed ? major : minor + i;
        const uint16_t value = uint16_t(from[lane] >> 16 * i);
        if (uint8_t *to = rows[8 * matrix + row])
          std::memcpy(to + 2 * column, &value, 2);
      }
    });
  }
}

template <Space space, int matrices, bool transposed> void addForms(Table &table, const std::string &where) {
  const std::string shape =
      ".sync.aligned.m8n8.x" + std::to_string(matrices) + (transposed ? ".trans" : "") + where + ".b16";
  const std::string registers = "b32x" + std::to_string(matrices);
  table
      .add(("ldmatrix" + shape).c_str(), (registers + " = addr").c_str(), OpClass::MatrixLoad,
           loadMatrix<space, matrices, transposed>)
      .flow(Flow::Collective)
      .space(space)
      .each([](Form &form) { form.readers = matrices == 4 ? kFull : (1u << 8 * matrices) - 1; });
  table
      .add(("stmatrix" + shape).c_str(), ("= addr " + registers).c_str(), OpClass::MatrixLoad,
           storeMatrix<space, matrices, transposed>)
      .flow(Flow::Collective)
      .space(space);
}

template <Space space> void addSpace(Table &table, const char *where) {
  addForms<space, 1, false>(table, where);
  addForms<space, 2, false>(table, where);
  addForms<space, 4, false>(table, where);
  addForms<space, 1, true>(table, where);
  addForms<space, 2, true>(table, where);
  addForms<space, 4, true>(table, where);
}

} // namespace

void addMatrixLoad(Table &table) {
  addSpace<Space::Shared>(table, ".shared[::cta]");
  addSpace<Space::Generic>(table, "");
}

} // namespace kvq::ptxsim
