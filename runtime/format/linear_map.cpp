// SPDX-License-Identifier: Apache-2.0
//
// The algebra of linear maps over GF(2): a vector is the bits of a uint64_t, addition is XOR.
#include "runtime/format/layout.h"

#include <bit>

namespace kvq {

LinearMap LinearMap::identity(int bits) {
  LinearMap map(bits, bits);
  for (int i = 0; i < bits; ++i)
    map.setColumn(i, uint64_t{1} << i);
  return map;
}

uint64_t LinearMap::apply(uint64_t x) const {
  uint64_t image = 0;
  for (int i = 0; i < inputs(); ++i)
    if (x >> i & 1)
      image ^= columns_[i];
  return image;
}

LinearMap LinearMap::compose(const LinearMap &inner) const {
  LinearMap result(inner.inputs(), outputs_);
  for (int i = 0; i < inner.inputs(); ++i)
    result.setColumn(i, apply(inner.column(i)));
  return result;
}

int LinearMap::rank() const {
  std::vector<uint64_t> rest = columns_;
  int rank = 0;
  for (size_t i = 0; i < rest.size(); ++i) {
    if (rest[i] == 0)
      continue;
    ++rank;
    const int pivot = std::countr_zero(rest[i]);
    for (size_t j = i + 1; j < rest.size(); ++j)
      if (rest[j] >> pivot & 1)
        rest[j] ^= rest[i];
  }
  return rank;
}

// Gauss-Jordan on columns: adding one column to another composes with an elementary map on the right, so the same
// steps that turn the map into the identity turn the identity into its inverse.
Result<LinearMap> LinearMap::inverse() const {
  if (!isBijective())
    return Status(Code::InvalidArgument, "the map from " + std::to_string(inputs()) + " to " +
                                             std::to_string(outputs_) + " bits has rank " + std::to_string(rank()) +
                                             " and therefore no inverse: use as many independent bits on both sides");
  LinearMap rest = *this;
  LinearMap result = identity(inputs());
  for (int bit = 0; bit < inputs(); ++bit) {
    int pivot = bit;
    while (!(rest.columns_[pivot] >> bit & 1))
      ++pivot;
    std::swap(rest.columns_[bit], rest.columns_[pivot]);
    std::swap(result.columns_[bit], result.columns_[pivot]);
    for (int other = 0; other < inputs(); ++other) {
      if (other == bit || !(rest.columns_[other] >> bit & 1))
        continue;
      rest.columns_[other] ^= rest.columns_[bit];
      result.columns_[other] ^= result.columns_[bit];
    }
  }
  return result;
}

} // namespace kvq
