// SPDX-License-Identifier: Apache-2.0
//
// Conversions between lane layouts: registers change their names, 8x8 blocks of pairs are transposed, or elements move
// by shuffles.

#include "codegen/nvptx/LaneEmitter.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::LaneLayout;
using tile::RegisterFile;
using tile::TileBit;

// kind: bfly, by an XOR of lane numbers, or idx.
Value LaneEmitter::shuffle(StringRef kind, Value value, Value lane) {
  Type type = value.getType(), word = b.getI32Type();
  Value bits = value;
  if (type.isIndex() || type.isInteger(64)) {
    // Two words.
    Value wide = type.isIndex() ? arith::IndexCastOp::create(b, b.getI64Type(), value).getResult() : value;
    Value low = shuffle(kind, arith::TruncIOp::create(b, word, wide), lane);
    Value shift = arith::ConstantIntOp::create(b, b.getI64Type(), 32);
    Value high = shuffle(kind, arith::TruncIOp::create(b, word, arith::ShRUIOp::create(b, wide, shift)), lane);
    Value joined = arith::ShLIOp::create(b, arith::ExtUIOp::create(b, b.getI64Type(), high), shift);
    joined = arith::OrIOp::create(b, joined, arith::ExtUIOp::create(b, b.getI64Type(), low));
    return type.isIndex() ? arith::IndexCastOp::create(b, type, joined).getResult() : joined;
  }
  unsigned width = isa<VectorType>(type) ? 32 : type.getIntOrFloatBitWidth();
  if (type != word) {
    Type same = b.getIntegerType(width);
    bits = isa<IntegerType>(type) ? bits : LLVM::BitcastOp::create(b, same, bits).getResult();
    bits = width == 32 ? bits : arith::ExtUIOp::create(b, word, bits).getResult();
  }
  Value moved =
      intrinsic(("llvm.nvvm.shfl.sync." + kind + ".i32").str(), word, {constant32(-1), bits, lane, constant32(31)});
  if (type == word)
    return moved;
  moved = width == 32 ? moved : arith::TruncIOp::create(b, b.getIntegerType(width), moved).getResult();
  return isa<IntegerType>(type) ? moved : LLVM::BitcastOp::create(b, type, moved).getResult();
}

// Lanes keep what they have; only which elements share a register differs.
LaneEmitter::Registers LaneEmitter::repaired(ArrayRef<Value> from, const RegisterFile &source,
                                             const RegisterFile &target) {
  Registers values;
  TileBit bit = target.layout().pair;
  for (int64_t number = 0; number < target.count(); ++number) {
    SmallVector<int64_t> index = target.base(number);
    Value low = element(from, source, index);
    if (!bit.isNone()) {
      index[bit.dim] |= int64_t(1) << bit.bit;
      low = pair(low, element(from, source, index));
    }
    values.push_back(low);
  }
  return values;
}

// A register of pairs of another layout (Fragment.h).
Value LaneEmitter::transposed(Value pairs) {
  Type word = b.getI32Type();
  auto dialect = LLVM::AsmDialectAttr::get(b.getContext(), LLVM::AsmDialect::AD_ATT);
  Value block = LLVM::BitcastOp::create(b, word, pairs);
  // LLVM 22 has no intrinsic for it.
  Value moved = LLVM::InlineAsmOp::create(b, word, block, "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", "=r,r",
                                          /*has_side_effects=*/true, /*is_align_stack=*/false, LLVM::TailCallKind::None,
                                          dialect, ArrayAttr())
                    .getResult(0);
  return LLVM::BitcastOp::create(b, pairs.getType(), moved);
}

// Each register of the target from the lane that has it. Where that lane has it in a register that depends on who asks,
// all of them are sent and the asking lane chooses.
LaneEmitter::Registers LaneEmitter::shuffled(ArrayRef<Value> from, const RegisterFile &source,
                                             const RegisterFile &target) {
  const LaneLayout &has = source.layout(), &wants = target.layout();
  // The lane that has what this one wants, without the bits that the register decides.
  Value asked = constant32(0);
  const SmallVector<int> deciding = bitsThatChoose(has, wants);
  for (int bit = 0; bit < LaneLayout::kLaneBits; ++bit) {
    TileBit wanted = wants.lane[bit];
    int at = has.laneOf(wanted);
    if (at >= 0) {
      Value one = arith::SelectOp::create(b, laneBit(bit), constant32(1 << at), constant32(0));
      asked = arith::OrIOp::create(b, asked, one);
    }
  }
  Registers values;
  for (int64_t number = 0; number < target.count(); ++number) {
    SmallVector<int64_t> base = target.base(number);
    int64_t fixed = 0;
    for (int at = 0; at < LaneLayout::kLaneBits; ++at)
      if (TileBit bit = has.lane[at]; !bit.isNone() && wants.laneOf(bit) < 0 && base[bit.dim] >> bit.bit & 1)
        fixed |= int64_t(1) << at;
    Value lane = b.createOrFold<arith::OrIOp>(asked, constant32(fixed));
    SmallVector<Value> candidates;
    for (int64_t choice = 0; choice < int64_t(1) << deciding.size(); ++choice) {
      SmallVector<int64_t> index = base;
      for (size_t i = 0; i < deciding.size(); ++i)
        if (TileBit bit = wants.lane[deciding[i]]; choice >> i & 1)
          index[bit.dim] |= int64_t(1) << bit.bit;
      candidates.push_back(shuffle("idx", element(from, source, index), lane));
    }
    for (int bit : deciding) {
      SmallVector<Value> chosen;
      for (size_t i = 0; i < candidates.size(); i += 2)
        chosen.push_back(arith::SelectOp::create(b, laneBit(bit), candidates[i + 1], candidates[i]));
      candidates = std::move(chosen);
    }
    values.push_back(candidates.front());
  }
  return values;
}

// A tile's registers in another layout.
LaneEmitter::Registers LaneEmitter::converted(ArrayRef<Value> from, const RegisterFile &source,
                                              const RegisterFile &target) {
  const Move move = moveOf(source.layout(), target.layout(), getElementTypeOrSelf(from.front().getType()));
  if (move == Move::Rename)
    return repaired(from, source, target);
  auto withPair = [](RegisterFile file, TileBit pair) {
    LaneLayout layout = file.layout();
    layout.pair = pair;
    return RegisterFile(file.shape(), layout);
  };
  // Halves that are not in pairs yet are put into those that a transposition takes, if the lane has both.
  if (move == Move::Transpose) {
    RegisterFile pairs = withPair(source, target.layout().lane[2]);
    Registers blocks = repaired(from, source, pairs), values;
    for (int64_t number = 0; number < target.count(); ++number)
      values.push_back(transposed(blocks[pairs.find(target.base(number))]));
    return values;
  }
  RegisterFile single = withPair(target, TileBit());
  return repaired(shuffled(from, source, single), single, target);
}

void LaneEmitter::emitConvert(tile::ConvertOp op) {
  registers[op.getResult()] = converted(registersOf(op.getSource()), fileOf(op.getSource()), fileOf(op.getResult()));
}
