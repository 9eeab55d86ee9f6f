// SPDX-License-Identifier: Apache-2.0
//
// kvq_tile.dot and kvq_tile.coeff on tensor cores.
//
// Codes become operands without a conversion. Bits 0 to 10 of an f16 are linear: a code in the low bits of a half is
// the number code * 2^-24, and code * 2^(p-24) where it begins p bits higher. So a mask makes a register of operands,
// and the power of two is undone in f32. (In the form `magic` the bits above are those of 1024, which is subtracted:
// code * 2^p, no number of which is subnormal, for one more operation. So are codes unpacked for f32 coefficients.)
// Fields that share a byte are rows of m: each row has its own power. Where all fields of a byte are rows that meet the
// same coefficients, a row's mask lets the rows above it through as well, and their sum is taken away in f32
// (telescoping): the lowest row of the second byte then needs no mask behind its byte permutation. Where lanes share a
// word (Fragment.cpp), it is first shifted by what the lane decides.
//
// Sums begin at zero in every product and are added in f32: tensor cores cut what they add to an accumulator that has
// grown (ptxsim's mode `truncate`), always in one direction. Values of f32 are the sum of two halves (addProducts).

#include "codegen/nvptx/LaneEmitter.h"
#include "codegen/nvptx/Product.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Matchers.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::LaneLayout;
using tile::RegisterFile;

static RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }

// What types alone say of a product, and where its codes are.
LaneEmitter::Product LaneEmitter::fragmentsOf(tile::DotOp op) {
  Product product;
  auto x = typeOf(op.getX()), coeff = typeOf(op.getCoeff());
  product.fragment = assignedFragment(op);
  product.contract = static_cast<int>(op.getContract());
  product.rows = typeOf(op.getAcc()).getDimSize(0);
  product.n = x.getDimSize(1 - product.contract);
  product.c = x.getDimSize(product.contract);
  product.sets = coeff.getRank() == 3 ? coeff.getDimSize(0) : 1;
  product.groups = op.getScale() ? typeOf(op.getScale()).getDimSize(0) : 1;
  product.xLanes = product.fragment.values(product.contract);
  product.xLanes.pair = {};
  product.isWide = coeff.getElementType().isF32();
  if (auto found = packed.find(op.getX()); found != packed.end()) {
    product.codes = found->second;
    // f32 coefficients want all bits of the sums. Rows that share a byte make them larger than what is left of them in
    // the end. And tensor cores align products by exponents before they are normalized: of a code as a subnormal half,
    // whose exponent is that of 2^-14, they keep no more than 14 bits and its own.
    product.telescopes = !product.isWide;
    product.form = product.isWide ? UnpackForm::Magic : form;
    for (int64_t k = 0; k < product.c; ++k)
      product.telescopes &= product.stepField(k) == 0;
    // Rows that share a byte must have the same coefficients.
    auto setOf = [&](int64_t m) { return m * product.sets / product.n; };
    for (int64_t m = 0; m < product.n; ++m)
      product.telescopes &= setOf(m) == setOf(withoutRowFields(product, m));
  }
  return product;
}

LaneEmitter::Product LaneEmitter::productOf(tile::DotOp op) {
  Product product = fragmentsOf(op);
  product.coeffFile = fileOf(op.getCoeff());
  if (auto found = registers.find(op.getCoeff()); found != registers.end())
    product.coeff = found->second;
  else
    product.scaled = op.getCoeff().getDefiningOp<tile::CoeffOp>();
  if (product.codes) {
    RegisterFile file(typeOf(op.getX()).getShape(), product.xLanes);
    for (int64_t number = 0; number < file.count(); ++number)
      product.words.push_back(product.codes->map.word(file.base(number)));
    llvm::sort(product.words);
    product.words.erase(llvm::unique(product.words), product.words.end());
  } else {
    product.x = op.getX();
    product.xFile = fileOf(op.getX());
  }
  return product;
}

// What rounding to halves leaves is multiplied by that, which makes it as large as what was rounded: it stays clear of
// where halves lose bits.
static constexpr double kRestPower = 2048;
// Products of two halves each wait for the sums of so many steps before the last.
static constexpr size_t kStepsAhead = 1;

// Two values as a register of halves, or kRestPower times what is left of them then.
Value LaneEmitter::halves(Value low, Value high, bool rest) {
  if (low.getType().isF16())
    return pair(low, high);
  auto round = [&](Value x) { return arith::TruncFOp::create(b, b.getF16Type(), x).getResult(); };
  if (rest) {
    auto left = [&](Value x) {
      Value near = arith::ExtFOp::create(b, b.getF32Type(), round(x));
      Value power = arith::ConstantOp::create(b, b.getF32FloatAttr(kRestPower));
      return arith::MulFOp::create(b, arith::SubFOp::create(b, x, near), power).getResult();
    };
    low = left(low);
    high = left(high);
  }
  return pair(round(low), round(high));
}

// Coefficients k and its neighbour of the pair.
Value LaneEmitter::bRegister(Product &product, int64_t set, int64_t row, int64_t k, bool rest) {
  SmallVector<int64_t> index = product.coeffIndex(set, row, k);
  const RegisterFile &file = *product.coeffFile;
  if (product.scaled) {
    RegisterFile valuesFile = fileOf(product.scaled.getValues()), scaleFile = fileOf(product.scaled.getScale());
    Value value = registersOf(product.scaled.getValues())[valuesFile.find({row, k})];
    Value scale = registerOf(product.scaled.getScale(), scaleFile.find({set, k}));
    Value low = arith::MulFOp::create(b, value, scale);
    if (isa<VectorType>(low.getType()))
      return low;
    int64_t next = k | int64_t(1) << product.fragment.kPair;
    value = registersOf(product.scaled.getValues())[valuesFile.find({row, next})];
    scale = registerOf(product.scaled.getScale(), scaleFile.find({set, next}));
    return halves(low, arith::MulFOp::create(b, value, scale), rest);
  }
  Value low = product.coeff[file.find(index)];
  if (isa<VectorType>(low.getType()))
    return low;
  index.back() |= int64_t(1) << product.fragment.kPair;
  return halves(low, product.coeff[file.find(index)], rest);
}

// word & mask | bits as one instruction, which ptxas does not make of two with constants.
Value LaneEmitter::maskedOr(Value word, int64_t mask, Value bits) {
  auto dialect = LLVM::AsmDialectAttr::get(b.getContext(), LLVM::AsmDialect::AD_ATT);
  SmallVector<Value> operands{word, constant32(mask), bits};
  return LLVM::InlineAsmOp::create(b, b.getI32Type(), operands, "lop3.b32 $0, $1, $2, $3, 0xea;", "=r,r,r,r",
                                   /*has_side_effects=*/false, /*is_align_stack=*/false, LLVM::TailCallKind::None,
                                   dialect, ArrayAttr())
      .getResult(0);
}

// A field of both halves of a word, its code where the row's power of two has it.
Value LaneEmitter::codesRegister(Product &product, int64_t m, int64_t k) {
  const WordMap &map = product.codes->map;
  SmallVector<int64_t> index = product.xIndex(m, k);
  Value word = loadWord(*product.codes, product.xLanes, product.words, map.word(index), product.loaded);
  if (Value shift = laneShift(map, product.xLanes))
    word = arith::ShRUIOp::create(b, word, shift);
  int64_t bits = map.bits, row = product.rowField(m), step = product.stepField(k);
  bool second = map.field(index) >= product.fieldsPerByte();
  int64_t field = (int64_t(1) << bits) - 1;
  int64_t mask = product.telescopes ? (0xff << row * bits) & 0xff : field << row * bits;
  bool isWhole = mask == 0xff && !step; // the byte as it is
  bool isMagic = product.form == UnpackForm::Magic;
  constexpr int64_t k1024 = 0x6400; // as an f16
  auto bitsOf = [&](int64_t bits) { // of 1024
    Value value = constant32(bits);
    return product.pace && isMagic ? arith::OrIOp::create(b, product.pace, value).getResult() : value;
  };
  if (second) { // bytes 1 and 3 to places 0 and 2, zeros elsewhere, or the upper byte of 1024
    int64_t upper = isMagic && isWhole ? k1024 >> 8 : 0;
    word =
        intrinsic("llvm.nvvm.prmt", b.getI32Type(), {word, upper ? bitsOf(upper) : constant32(0), constant32(0x4341)});
  }
  if (step)
    word = arith::ShRUIOp::create(b, word, constant32(step * bits));
  bool isMasked = !second || !isWhole;
  if (isMasked && isMagic)
    word = maskedOr(word, mask << 16 | mask, bitsOf(k1024 << 16 | k1024));
  else if (isMasked)
    word = arith::AndIOp::create(b, word, constant32(mask << 16 | mask));
  Type pairs = VectorType::get({2}, b.getF16Type());
  Value operands = LLVM::BitcastOp::create(b, pairs, word);
  if (!isMagic)
    return operands;
  Value bias = arith::ConstantOp::create(b, DenseElementsAttr::get(cast<ShapedType>(pairs), b.getF16FloatAttr(1024)));
  return arith::SubFOp::create(b, operands, bias);
}

Value LaneEmitter::aRegister(Product &product, int64_t m, int64_t k, bool rest) {
  if (product.codes) {
    Value &made = product.aMade[{m, k}];
    if (!made)
      made = codesRegister(product, m, k);
    return made;
  }
  SmallVector<int64_t> index = product.xIndex(m, k);
  Value value = registerOf(product.x, product.xFile->find(index));
  if (!isa<VectorType>(value.getType())) {
    index[product.contract] |= int64_t(1) << product.fragment.kPair;
    value = halves(value, registerOf(product.x, product.xFile->find(index)), rest);
  }
  if (!product.pace)
    return value;
  Value bits = LLVM::BitcastOp::create(b, b.getI32Type(), value);
  return LLVM::BitcastOp::create(b, value.getType(), arith::OrIOp::create(b, bits, product.pace));
}

// sums[0..3] += the products of 16 elements along m with 8 rows of coefficients, over the given blocks of k. `operands`
// gives the four registers of a block of k, or what rounding has left of them.
//
// A sum that wants more than a half's bits wants more than tensor cores' sums as well: these cut every addend off 24
// bits below the largest, always in one direction, and the largest is soon the accumulator. So each block of 16 is a
// sum of its own there, added in f32. What rounding left is 2^-11 of the rest, and cutting it off does no harm; its sum
// is added in the end, or, where the caller keeps it from step to step, by addKept.
void LaneEmitter::addProducts(Product &product, int64_t set, int64_t row, ArrayRef<int64_t> ks, bool restOfA,
                              function_ref<SmallVector<Value>(int64_t k, bool rest)> operands,
                              MutableArrayRef<Value> sums, SmallVectorImpl<Value> *kept) {
  bool restOfB = !product.scaled ? product.coeff.front().getType().isF32()
                                 : getElementTypeOrSelf(product.scaled.getType()).isF32();
  Type f32 = b.getF32Type();
  Type result = LLVM::LLVMStructType::getLiteral(b.getContext(), {f32, f32, f32, f32});
  auto multiply = [&](int64_t k, bool ofA, bool ofB, ArrayRef<Value> begin) {
    SmallVector<Value> all = operands(k, ofA);
    for (int64_t at : {k, product.kHigh(k)}) {
      Value &made = product.bMade[{set * product.rows + row, at, ofB}];
      if (!made)
        made = bRegister(product, set, row, at, ofB);
      all.push_back(made);
    }
    llvm::append_range(all, begin);
    Value out = intrinsic("llvm.nvvm.mma.m16n8k16.row.col.f32.f32", result, all);
    SmallVector<Value> four;
    for (int64_t i = 0; i < 4; ++i)
      four.push_back(LLVM::ExtractValueOp::create(b, out, i));
    return four;
  };
  auto add = [&](ArrayRef<Value> more, double power) {
    for (auto [sum, value] : llvm::zip(sums, more))
      sum = accumulated(sum, value, power, {});
  };
  if (!restOfA && !restOfB) {
    for (int64_t k : ks)
      llvm::copy(multiply(k, false, false, sums), sums.begin());
    return;
  }
  multipliesRests = true;
  const SmallVector<Value> zeros(4, zeroOf(f32));
  SmallVector<Value> rest = kept && !kept->empty() ? SmallVector<Value>(kept->begin(), kept->end()) : zeros;
  for (int64_t k : ks) {
    add(multiply(k, false, false, zeros), 1);
    if (restOfA)
      rest = multiply(k, true, false, rest);
    if (restOfB)
      rest = multiply(k, false, true, rest);
  }
  if (kept)
    kept->assign(rest.begin(), rest.end());
  else
    add(rest, 1 / kRestPower);
}

// The same for a block of x. `upper`: whose elements the upper half along m are.
void LaneEmitter::addProducts(Product &product, Product &upper, int64_t set, int64_t m, int64_t row,
                              ArrayRef<int64_t> ks, MutableArrayRef<Value> sums, SmallVectorImpl<Value> *kept) {
  auto operands = [&](int64_t k, bool rest) {
    SmallVector<Value> four;
    for (int64_t at : {k, product.kHigh(k)})
      for (bool isUpper : {false, true})
        four.push_back(aRegister(isUpper ? upper : product, isUpper ? product.mHigh(m) : m, at, rest));
    return four;
  };
  bool restOfA = product.x && getElementTypeOrSelf(product.x.getType()).isF32();
  addProducts(product, set, row, ks, restOfA, operands, sums, kept);
}

void LaneEmitter::addKept(ArrayRef<Value> kept, MutableArrayRef<Value> sums) {
  for (auto [sum, rest] : llvm::zip(sums, kept))
    sum = accumulated(sum, rest, 1 / kRestPower, {});
}

// Zero, as far as the launch knows, and not before the sums are: ptxas would multiply far ahead, and what it multiplied
// would wait in registers for these additions (measured: 144 of them).
Value LaneEmitter::zeroBehind(ArrayRef<Value> sums) {
  Value bits;
  for (Value sum : sums) {
    Value more = arith::BitcastOp::create(b, b.getI32Type(), sum);
    bits = bits ? arith::OrIOp::create(b, bits, more).getResult() : more;
  }
  return arith::AndIOp::create(b, bits, launchZero());
}

LogicalResult LaneEmitter::emitCoeff(tile::CoeffOp op) {
  RegisterFile file = fileOf(op.getResult());
  // Products of values and scales are made where they are used: all sets at once would not fit the registers.
  bool inPlace = llvm::all_of(op->getUsers(), [&](Operation *user) {
    auto dot = dyn_cast<tile::DotOp>(user);
    return dot && usesTensorCores(dot) && dot.getCoeff() == op.getResult() && user->getBlock() == op->getBlock();
  });
  if (op.getScale() && inPlace)
    return success();
  RegisterFile valuesFile = fileOf(op.getValues());
  const Registers values = registersOf(op.getValues());
  Registers result;
  for (int64_t number = 0; number < file.count(); ++number) {
    SmallVector<int64_t> index = file.base(number);
    Value value = values[valuesFile.find({index[1], index[2]})];
    if (op.getScale())
      value =
          arith::MulFOp::create(b, value, registerOf(op.getScale(), fileOf(op.getScale()).find({index[0], index[2]})));
    result.push_back(value);
  }
  registers[op.getResult()] = std::move(result);
  return success();
}

LogicalResult LaneEmitter::emitDot(tile::DotOp op) {
  if (!usesTensorCores(op))
    return emitSmallDot(op), success();
  Product product = productOf(op);
  product.center = op.getCenter().convertToDouble();
  if (!liesInParts(product.fragment, op))
    return op.emitOpError("has groups that are shorter than the 16 elements that tensor cores take of this layout; use "
                          "longer groups or the profile mma");
  if (auto constant = constantRow(op))
    return emitConstantRow(op, *constant), success();
  if (auto found = accumulation.pairs.find(op); found != accumulation.pairs.end())
    return emitPair(op, found->second), success();
  bool isCarried = carried.contains(op);
  if (accumulation.unscaled.contains(op))
    return emitUnscaled(op, product), success();
  Registers result(isCarried ? 0 : registersOf(op.getAcc()).size());
  for (ArrayRef<int64_t> blocks : clustersOf(product)) {
    if (isCarried)
      carryCluster(carried[op], product, blocks);
    else
      multiplyCluster(op, product, blocks, result);
  }
  if (isCarried)
    carryBias(carried[op], product);
  registers[op.getResult()] = std::move(result);
  return success();
}

// Blocks of m whose rows share bytes are worked on together; of coefficients that are two halves all blocks, where
// these are fewer than blocks of k: else coefficients of all of k would wait for the next blocks.
SmallVector<SmallVector<int64_t>> LaneEmitter::clustersOf(const Product &product) {
  if (product.isWide && product.mBlocks().size() < product.kBlocks().size())
    return {product.mBlocks()};
  llvm::MapVector<int64_t, SmallVector<int64_t>> clusters;
  for (int64_t m : product.mBlocks())
    clusters[product.codes ? withoutRowFields(product, m) : m].push_back(m);
  SmallVector<SmallVector<int64_t>> result;
  for (auto &[first, blocks] : clusters)
    result.push_back(blocks);
  return result;
}

// The index without the bits that select a field of a byte.
int64_t LaneEmitter::withoutRowFields(const Product &product, int64_t m) {
  int64_t result = m;
  for (int bit = 0; int64_t(1) << bit < product.n; ++bit)
    if (product.rowField(int64_t(1) << bit) != 0)
      result &= ~(int64_t(1) << bit);
  return result;
}

// What a sum of products with codes stands for, and the power of two that it is to be multiplied by. `sums` has those
// of all rows that share bytes with it.
std::pair<Value, double> LaneEmitter::withoutRowsAbove(const Product &product, const Sums &sums, int64_t m,
                                                       int64_t row) {
  int64_t field = product.rowField(m);
  Value sum = sums.find({m, row})->second;
  if (product.telescopes && field + 1 < product.fieldsPerByte())
    for (auto &[place, other] : sums)
      if (place.second == row && product.rowField(place.first) == field + 1 &&
          (place.first ^ m) == (withRowField(product, m, field + 1) ^ m)) {
        sum = arith::SubFOp::create(b, sum, other);
        break;
      }
  return {sum, powerOf(product, m)};
}

// What sums of codes of a row are to be multiplied by.
double LaneEmitter::powerOf(const Product &product, int64_t m) {
  return std::ldexp(1.0, static_cast<int>(product.codePower() - product.rowField(m) * product.codes->map.bits));
}

// The index whose bits select another field of its byte.
int64_t LaneEmitter::withRowField(const Product &product, int64_t m, int64_t field) {
  int64_t result = withoutRowFields(product, m);
  for (int bit = 0; int64_t(1) << bit < product.n; ++bit)
    if (product.rowField(int64_t(1) << bit) & field)
      result |= int64_t(1) << bit;
  return result;
}

// What a code in the middle of its range adds to the product of a row of codes, in the row's units.
double LaneEmitter::middleOf(const Product &product, int64_t m) {
  int64_t bits = product.codes->map.bits, field = product.rowField(m), most = product.telescopes ? 8 / bits : field + 1;
  double sum = 0;
  for (int64_t above = field; above < most; ++above)
    sum += std::ldexp(product.middle(), static_cast<int>(above * bits) - product.codePower());
  return sum;
}

// Sums over the given blocks of k of a few blocks of m, all rows; measured from the middle of codes, if asked. What a
// block of k needs is used up before the next: operands of all of them would not fit the registers. So coefficients
// that are two halves are added up by the way; `group`: whose sums these are.
LaneEmitter::Sums LaneEmitter::clusterSums(Product &product, ArrayRef<int64_t> blocks, ArrayRef<int64_t> steps,
                                           bool fromMiddle, int64_t group) {
  llvm::MapVector<std::pair<int64_t, int64_t>, SmallVector<Value>> fours;
  auto setOf = [&](int64_t m) { return m * product.sets / product.n; };
  for (int64_t row = 0; row < product.rows; row += 8)
    for (int64_t m : blocks) {
      SmallVector<Value> &four = fours[{m, row}];
      four.assign(4, zeroOf(b.getF32Type()));
      for (int64_t i = 0; fromMiddle && i < 4; ++i) {
        bool isAbsent = i >= 2 && product.fragment.mReg < 0;
        double middle = isAbsent ? 0 : -middleOf(product, i < 2 ? m : product.mHigh(m));
        four[i] = accumulated(four[i], sumOfCoefficients(product, setOf(m), row + i % 2), middle, {});
      }
    }
  llvm::MapVector<std::pair<int64_t, int64_t>, SmallVector<Value>> ofCoefficients; // by set and row
  if (product.isWide && product.center != 0 && !fromMiddle)
    for (auto &[place, four] : fours)
      if (std::pair at(setOf(place.first), place.second); !product.coeffSums.contains({at.first, at.second, group}))
        ofCoefficients[at].assign(4, zeroOf(b.getF32Type()));
  // Of coefficients that are two halves: what their rests sum up to, and sums as they were a step ago.
  const bool isPaced = product.isWide && steps.size() > kStepsAhead + 1;
  llvm::MapVector<SmallVector<Value> *, SmallVector<Value>> kept;
  SmallVector<SmallVector<Value>> sumsOfSteps;
  auto all = [&](function_ref<void(SmallVector<Value> & four)> visit) {
    for (auto &[place, four] : fours)
      visit(four);
    for (auto &[place, four] : ofCoefficients)
      visit(four);
  };
  for (int64_t k : steps) {
    if (isPaced && sumsOfSteps.size() > kStepsAhead)
      product.pace = zeroBehind(sumsOfSteps.end()[-1 - static_cast<int64_t>(kStepsAhead)]);
    for (auto &[place, four] : fours)
      addProducts(product, product, setOf(place.first), place.first, place.second, k, four, &kept[&four]);
    for (auto &[place, four] : ofCoefficients)
      addCoefficients(product, place.first, place.second, k, four, &kept[&four]);
    SmallVector<Value> &now = sumsOfSteps.emplace_back();
    all([&](SmallVector<Value> &four) { llvm::append_range(now, four); });
  }
  product.pace = Value();
  all([&](SmallVector<Value> &four) { addKept(kept[&four], four); });
  for (auto &[place, four] : ofCoefficients)
    for (int64_t i = 0; i < 2; ++i)
      product.coeffSums[{place.first, place.second + i, group}] = four[i];
  Sums sums;
  for (auto &[place, four] : fours)
    for (int64_t i = 0; i < 4; ++i)
      if (auto [m, row] = place; i < 2 || product.fragment.mReg >= 0)
        sums[{i < 2 ? m : product.mHigh(m), row + i % 2}] = four[i];
  return sums;
}

// The sign of the number of programs, which has none.
Value LaneEmitter::launchZero() {
  return atBeginning("zero", [&]() -> Value {
    Value sign = arith::ShRUIOp::create(b, programs, arith::ConstantIntOp::create(b, b.getI64Type(), 63));
    return arith::TruncIOp::create(b, b.getI32Type(), sign);
  });
}

// The four registers of an operand of ones. As constants they would be made anew for each multiplication, which wants
// them in neighbouring registers (four moves each, measured); so they come from what only the launch knows.
ArrayRef<Value> LaneEmitter::onesOperand() {
  if (!ones.empty())
    return ones;
  Value nothing = launchZero();
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointAfterValue(nothing);
  for (int64_t i = 1; i <= 4; ++i) {
    Value bits = arith::AddIOp::create(b, arith::MulIOp::create(b, nothing, constant32(i)), constant32(0x3c003c00));
    ones.push_back(LLVM::BitcastOp::create(b, VectorType::get({2}, b.getF16Type()), bits));
  }
  return ones;
}

// The sums over the given blocks of k of the coefficients of 8 rows of a set: those of this lane, the even one first.
std::array<Value, 2> LaneEmitter::sumsOfCoefficients(Product &product, int64_t set, int64_t row,
                                                     ArrayRef<int64_t> steps) {
  SmallVector<Value> four(4, zeroOf(b.getF32Type()));
  addCoefficients(product, set, row, steps, four);
  return {four[0], four[1]};
}

void LaneEmitter::addCoefficients(Product &product, int64_t set, int64_t row, ArrayRef<int64_t> steps,
                                  MutableArrayRef<Value> sums, SmallVectorImpl<Value> *kept) {
  auto operands = [&](int64_t, bool) { return SmallVector<Value>(onesOperand()); };
  addProducts(product, set, row, steps, /*restOfA=*/false, operands, sums, kept);
}

// The sum of the coefficients of a row and set in a group, made once.
Value LaneEmitter::sumOfCoefficients(Product &product, int64_t set, int64_t row, int64_t group) {
  int64_t block = row / 8 * 8;
  if (!product.coeffSums[{set, block, group}])
    for (auto [i, sum] : llvm::enumerate(sumsOfCoefficients(product, set, block, product.kBlocksOf(group))))
      product.coeffSums[{set, block + static_cast<int64_t>(i), group}] = sum;
  return product.coeffSums[{set, row, group}];
}

// total minus what centred codes take away from every result of a row.
Value LaneEmitter::centred(Product &product, int64_t set, int64_t row, Value total, int64_t group) {
  return accumulated(total, sumOfCoefficients(product, set, row, group), -product.center, {});
}

// A row of one constant: a multiple of the sums of coefficients.
void LaneEmitter::emitConstantRow(tile::DotOp op, double factor) {
  Product product = productOf(op);
  RegisterFile file = fileOf(op.getResult());
  const Registers &acc = registersOf(op.getAcc());
  Registers result(static_cast<size_t>(file.count()));
  for (int64_t row = 0; row < product.rows; row += 8)
    for (auto [i, sum] : llvm::enumerate(sumsOfCoefficients(product, 0, row, product.kBlocks()))) {
      int64_t number = file.find({row + static_cast<int64_t>(i), 0});
      result[number] = accumulated(acc[number], sum, factor, {});
    }
  registers[op.getResult()] = std::move(result);
}

// Each group of k, what its sums stand for, and their place in the result.
void LaneEmitter::multiplyCluster(tile::DotOp op, Product &product, ArrayRef<int64_t> blocks, Registers &result) {
  RegisterFile file = fileOf(op.getResult());
  const Registers acc = registersOf(op.getAcc());
  for (int64_t group = 0; group < product.groups; ++group) {
    Sums sums = clusterSums(product, blocks, product.kBlocksOf(group), /*fromMiddle=*/false, group);
    for (auto &[place, sum] : sums) {
      auto [m, r] = place;
      int64_t number = file.find({r, m});
      auto [value, power] = product.codes ? withoutRowsAbove(product, sums, m, r) : std::pair(sum, 1.0);
      Value scale = op.getScale() ? elementOf(op.getScale(), {group, m}) : Value();
      Value total = group == 0 ? acc[number] : result[number];
      int64_t set = m * product.sets / product.n;
      if (product.center != 0 && scale) { // a scale multiplies it as well
        value = centred(product, set, r, accumulated(zeroOf(b.getF32Type()), value, power, {}), group);
        power = 1;
      } else if (product.center != 0) {
        total = centred(product, set, r, total);
      }
      result[number] = accumulated(total, value, power, scale);
    }
  }
}

// total + value * power * scale. A power of two and an addition are one operation, and exact where they are two.
Value LaneEmitter::accumulated(Value total, Value value, double power, Value scale) {
  Value factor = arith::ConstantOp::create(b, b.getF32FloatAttr(static_cast<float>(power)));
  bool isFirst = matchPattern(total, m_PosZeroFloat());
  if (scale)
    factor = arith::MulFOp::create(b, scale, factor);
  else if (power == 1.0)
    return isFirst ? value : arith::AddFOp::create(b, total, value).getResult();
  if (isFirst)
    return arith::MulFOp::create(b, value, factor);
  return math::FmaOp::create(b, value, factor, total);
}

// Few products an element: each lane adds up those of its own results, group by group.
void LaneEmitter::emitSmallDot(tile::DotOp op) {
  RegisterFile file = fileOf(op.getResult()), xFile = fileOf(op.getX()), coeffFile = fileOf(op.getCoeff());
  auto x = typeOf(op.getX()), coeff = typeOf(op.getCoeff());
  int contract = static_cast<int>(op.getContract());
  int64_t sets = coeff.getRank() == 3 ? coeff.getDimSize(0) : 1, n = x.getDimSize(1 - contract);
  int64_t groups = op.getScale() ? typeOf(op.getScale()).getDimSize(0) : 1, extent = x.getDimSize(contract);
  auto wide = [&](Value value) {
    return value.getType().isF32() ? value : arith::ExtFOp::create(b, b.getF32Type(), value).getResult();
  };
  Registers result;
  for (int64_t number = 0; number < file.count(); ++number) {
    SmallVector<int64_t> place = file.base(number);
    Value total = registersOf(op.getAcc())[number];
    auto coefficient = [&](int64_t c) {
      if (coeff.getRank() == 2)
        return element(registersOf(op.getCoeff()), coeffFile, {place[0], c});
      auto ofSet = [&](ArrayRef<int64_t> here) {
        return element(registersOf(op.getCoeff()), coeffFile, {here[1] * sets / n, place[0], c});
      };
      return byLanes(file.layout(), sets > 1 ? ArrayRef<int>{1} : ArrayRef<int>(), place, ofSet);
    };
    for (int64_t group = 0; group < groups; ++group) {
      Value sum = op.getScale() ? zeroOf(b.getF32Type()) : total;
      for (int64_t c = group * (extent / groups); c < (group + 1) * (extent / groups); ++c) {
        SmallVector<int64_t> at = contract == 1 ? SmallVector<int64_t>{place[1], c} : SmallVector<int64_t>{c, place[1]};
        Value value = wide(element(registersOf(op.getX()), xFile, at));
        if (!op.getCenter().isZero())
          value = arith::SubFOp::create(b, value, arith::ConstantOp::create(b, op.getCenterAttr()));
        sum = math::FmaOp::create(b, value, wide(coefficient(c)), sum);
      }
      if (Value scale = op.getScale())
        sum = math::FmaOp::create(b, sum, element(registersOf(scale), fileOf(scale), {group, place[1]}), total);
      total = sum;
    }
    result.push_back(total);
  }
  registers[op.getResult()] = std::move(result);
}
