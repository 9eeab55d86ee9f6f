// SPDX-License-Identifier: Apache-2.0
//
// kvq_tile.dot with coefficients in f32; EmitIntegerDot.cpp has those that are integers.
//
// Packed codes whose layout puts the result dimension into the lanes of 16 words and the contracted one into the fields
// of a word need no shuffle and no horizontal sum: a register tile of `rows` coefficients by `vectors` of results runs
// over the contracted dimension; each step loads one word per lane, cuts out its 32/bits fields one by one and
// multiplies each by a broadcast coefficient per row. A field is masked where it lies and converted as it is, code *
// 2^shift, exact in f32; the power of two is divided out of the coefficients, once per dot: two instructions per 16
// codes whatever the number of rows.
// The same register tile serves f32 operands contracted along rows; f32 contracted along the contiguous dimension is a
// horizontal sum per element. Any other layout is unpacked to f32 first.

#include "codegen/cpu/RegisterTile.h"
#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

struct TileEmitter::Panel {
  int64_t step;                  // contracted elements of one step
  int64_t contracted, results;   // extents
  int64_t lanes;                 // of one vector of results
  SmallVector<int64_t> position; // of each field within the step
  Buffer coeff;                  // [S, R, C], powers of two divided out
  // Parts of an address that depend on the step and on the result column; then the words or values of one vector.
  std::function<Value(Value stepBegin)> stepAddress;
  std::function<Value(Value column)> columnAddress;
  std::function<Value(Value address)> load;
  std::function<Value(Value loaded, int64_t field)> extract; // one field as f32
};

namespace {

// The fields of a word: their dimension, and where each lies. Fails where the layout has no such form.
struct WordForm {
  ::kvq::Dim fieldDim;
  SmallVector<int64_t> position; // of field i along fieldDim
};

FailureOr<WordForm> wordForm(const ::kvq::Layout &layout, int64_t bits) {
  int64_t fieldBits = llvm::Log2_64(32 / bits);
  if (static_cast<int64_t>(layout.inner.size()) < fieldBits + 4)
    return failure();
  for (const auto &xors : layout.inner)
    if (xors.size() != 1)
      return failure();
  WordForm form;
  form.fieldDim = fieldBits ? layout.inner[0][0].dim : ::kvq::Dim::Channel;
  for (int64_t i = 0; i < fieldBits; ++i) // fields: exactly the low bits of one dimension
    if (layout.inner[i][0].dim != form.fieldDim || layout.inner[i][0].bit >= fieldBits)
      return failure();
  for (int64_t i = 0; i < 4; ++i) // lanes: bits 0..3 of the other
    if (layout.inner[fieldBits + i][0].dim == form.fieldDim || layout.inner[fieldBits + i][0].bit != i)
      return failure();
  for (int64_t field = 0; field < 32 / bits; ++field) {
    int64_t position = 0;
    for (int64_t i = 0; i < fieldBits; ++i)
      position |= ((field >> i) & 1) << layout.inner[i][0].bit;
    form.position.push_back(position);
  }
  return form;
}

} // namespace

// Coefficients with a pattern of factors along the contracted dimension, which the pattern's length divides.
TileEmitter::Buffer TileEmitter::scaleCoefficients(const Buffer &coeff, ArrayRef<float> pattern) {
  Buffer scaled = allocate(coeff.shape, coeff.element);
  int64_t length = pattern.size();
  int64_t lanes = std::min(level.lanes, length);
  int64_t total = ShapedType::getNumElements(coeff.shape);
  loop(0, total, length, [&](Value i) {
    for (int64_t part = 0; part < length; part += lanes) {
      auto type = VectorType::get({lanes}, b.getF32Type());
      Value factor = b.create<arith::ConstantOp>(DenseElementsAttr::get(type, pattern.slice(part, lanes)));
      Value at = add(i, constant(part));
      Value value = loadVector(address(coeff.ptr, coeff.element, at), coeff.element, lanes);
      storeVector(b.create<arith::MulFOp>(value, factor), address(scaled.ptr, scaled.element, at));
    }
  });
  return scaled;
}

// Index of the coefficient set that result column `column` uses.
Value TileEmitter::coefficientSet(tile::DotOp op, Value column) {
  auto coeff = cast<RankedTensorType>(op.getCoeff().getType());
  if (coeff.getRank() == 2 || coeff.getDimSize(0) == 1)
    return constant(0);
  int64_t columns = cast<RankedTensorType>(op.getType()).getDimSize(1);
  return div(column, columns / coeff.getDimSize(0));
}

// Rows row.., vectors of columns column..: accumulators in registers over the whole contracted dimension.
// firstTurn: of this dot's turns of a prefetch, or null where it has none.
void TileEmitter::emitRegisterTile(tile::DotOp op, const Panel &panel, const Buffer &out, Value row, int64_t rows,
                                   Value column, int64_t vectors, Value firstTurn) {
  int64_t lanes = panel.lanes;
  Type type = vectorOf(b.getF32Type(), lanes);
  int64_t groups = scaleGroups(op);
  SmallVector<Value> columns, columnAddresses, sets, rowIndex;
  for (int64_t v = 0; v < vectors; ++v) {
    columns.push_back(add(column, constant(v * lanes)));
    columnAddresses.push_back(panel.columnAddress(columns.back()));
    sets.push_back(mul(coefficientSet(op, columns.back()), panel.coeff.shape[panel.coeff.shape.size() - 2]));
  }
  for (int64_t r = 0; r < rows; ++r)
    rowIndex.push_back(add(row, constant(r)));
  // Coefficients of row r for vector v begin here; one address where all vectors share a set.
  bool shared = panel.coeff.shape.size() == 2 || panel.coeff.shape[0] == 1;
  SmallVector<Value> coeffRow;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < (shared ? 1 : vectors); ++v)
      coeffRow.push_back(mul(add(sets[v], rowIndex[r]), panel.contracted));

  SmallVector<Value> totals; // what is stored in the end
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < vectors; ++v)
      totals.push_back(eval(op.getAcc(), {rowIndex[r], columns[v]}, lanes));
  int64_t groupLength = panel.contracted / groups;
  for (int64_t group = 0; group < groups; ++group) {
    SmallVector<Value> inits = totals;
    if (op.getScale())
      inits.assign(totals.size(), splat(type, 0.0));
    auto steps = b.create<scf::ForOp>(constant(group * groupLength), constant((group + 1) * groupLength),
                                      constant(panel.step), inits);
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(steps.getBody());
      Value begin = steps.getInductionVar(), stepAddress = panel.stepAddress(begin);
      if (firstTurn)
        prefetchTurn(op, add(firstTurn, div(begin, panel.step)));
      SmallVector<Value> sums(steps.getRegionIterArgs()), loaded;
      for (int64_t v = 0; v < vectors; ++v)
        loaded.push_back(panel.load(add(stepAddress, columnAddresses[v])));
      for (auto [field, position] : llvm::enumerate(panel.position)) {
        Value at = add(begin, constant(position));
        SmallVector<Value> values;
        for (int64_t v = 0; v < vectors; ++v)
          values.push_back(panel.extract(loaded[v], field));
        for (int64_t r = 0; r < rows; ++r) {
          Value factor;
          for (int64_t v = 0; v < vectors; ++v) {
            if (v == 0 || !shared) {
              Value from = coeffRow[shared ? r : r * vectors + v];
              factor = loadVector(address(panel.coeff.ptr, b.getF32Type(), add(from, at)), b.getF32Type(), 1);
              if (lanes > 1)
                factor = b.create<vector::BroadcastOp>(type, factor);
            }
            Value &sum = sums[r * vectors + v];
            sum = multiplyAdd(values[v], factor, sum);
          }
        }
      }
      b.create<scf::YieldOp>(sums);
    }
    for (int64_t i = 0; i < rows * vectors; ++i) {
      Value sum = steps.getResult(i);
      if (op.getScale()) {
        Value scale = eval(op.getScale(), {constant(group), columns[i % vectors]}, lanes);
        sum = multiplyAdd(sum, scale, totals[i]);
      }
      totals[i] = sum;
    }
  }
  for (int64_t i = 0; i < rows * vectors; ++i) {
    Value linear = add(mul(rowIndex[i / vectors], out.shape[1]), columns[i % vectors]);
    storeVector(totals[i], address(out.ptr, out.element, linear));
  }
}

// Groups of the contracted dimension that have a scale of their own.
int64_t TileEmitter::scaleGroups(tile::DotOp op) {
  return op.getScale() ? cast<RankedTensorType>(op.getScale().getType()).getDimSize(0) : 1;
}

// A vector of results lies in one set of coefficients.
int64_t TileEmitter::dotLanes(tile::DotOp op) {
  auto coeff = cast<RankedTensorType>(op.getCoeff().getType());
  int64_t sets = coeff.getRank() == 3 ? coeff.getDimSize(0) : 1;
  return lanesFor(cast<RankedTensorType>(op.getType()).getDimSize(1) / sets);
}

// Whether operands are cut out of the words once for several tiles of rows. Beside vpdpbusd a shift and a mask cost
// nothing (measured: cutting made 12 and 16 rows a quarter slower).
bool TileEmitter::cutsOnce(tile::DotOp op) { return takesIntegers(op) && integerFormOf(op).kind != IntegerDot::Bytes; }

// Rows and vectors of a register tile: divisors, so that no tile is cut. Per step a tile broadcasts a coefficient for
// each row and takes an operand out of each vector; the best shape has the least of that for one product.
std::pair<int64_t, int64_t> mlir::kvq::cpu::chooseRegisterTile(const CpuLevel &level, int64_t rows, int64_t columns,
                                                               bool cuts, int64_t rowLimit, int64_t vectorLimit) {
  std::pair<int64_t, int64_t> best = {1, 1};
  auto cost = [&](std::pair<int64_t, int64_t> shape) {
    auto [r, v] = shape;
    bool cut = cuts && r < rows;
    // A shift and a mask, where it is not cut already; cutting also stores.
    double products = static_cast<double>(r * v), operands = (cut ? 1.0 : 1.5) * static_cast<double>(v);
    return (static_cast<double>(r) + operands) / products + (cut ? 3.0 / static_cast<double>(rows) : 0.0);
  };
  for (int64_t r = 1; r <= std::min({rows, rowLimit, level.accumulators}); ++r)
    for (int64_t v = 1; rows % r == 0 && v <= std::min({columns, vectorLimit, level.accumulators / r}); ++v)
      if (columns % v == 0 && cost({r, v}) < cost(best))
        best = {r, v};
  return best;
}

std::pair<int64_t, int64_t> TileEmitter::registerTile(tile::DotOp op) {
  auto result = cast<RankedTensorType>(op.getType());
  return chooseRegisterTile(level, result.getDimSize(0), result.getDimSize(1) / dotLanes(op), cutsOnce(op),
                            schedule ? schedule.getRows() : 8, schedule ? schedule.getVectors() : 8);
}

void TileEmitter::emitPanels(tile::DotOp op, const Panel &panel, const Buffer &out) {
  int64_t rows = out.shape[0], lanes = panel.lanes, steps = panel.contracted / panel.step;
  auto [tileRows, tileVectors] = registerTile(op);
  loop(0, panel.results, tileVectors * lanes, [&](Value column) {
    loop(0, rows, tileRows, [&](Value row) {
      Value number = add(mul(div(column, tileVectors * lanes), rows / tileRows), div(row, tileRows));
      emitRegisterTile(op, panel, out, row, tileRows, column, tileVectors,
                       panel.step > 1 ? mul(number, steps) : Value());
    });
  });
}

// f32 rows contracted along their contiguous dimension, as many rows of x at a time as a vector has lanes: their sums
// are brought into the lanes of one vector together, which costs less than a horizontal sum for each.
void TileEmitter::emitTransposingDot(tile::DotOp op, const Buffer &x, const Buffer &coeff, const Buffer &out) {
  int64_t columns = x.shape[0], contracted = x.shape[1], rows = out.shape[0], lanes = level.lanes;
  loop(0, columns, lanes, [&](Value column) {
    Value set = mul(coefficientSet(op, column), rows);
    loop(0, rows, 1, [&](Value row) {
      Value coeffBegin = mul(add(set, row), contracted);
      SmallVector<Value> sums(lanes, splat(vectorOf(b.getF32Type(), lanes), 0.0)), begins;
      for (int64_t i = 0; i < lanes; ++i)
        begins.push_back(mul(add(column, constant(i)), contracted));
      auto partial = accumulate(0, contracted, lanes, sums, [&](Value i, MutableArrayRef<Value> carried) {
        Value factor = loadVector(address(coeff.ptr, coeff.element, add(coeffBegin, i)), coeff.element, lanes);
        for (auto [begin, sum] : llvm::zip(begins, carried)) {
          Value value = loadVector(address(x.ptr, x.element, add(begin, i)), x.element, lanes);
          sum = multiplyAdd(value, factor, sum);
        }
      });
      Value total = combineRuns(partial, lanes, [&](Value a, Value c) { return b.create<arith::AddFOp>(a, c); })[0];
      total = b.create<arith::AddFOp>(total, eval(op.getAcc(), {row, column}, lanes));
      storeVector(total, address(out.ptr, out.element, add(mul(row, columns), column)));
    });
  });
}

// f32 rows contracted along their contiguous dimension: horizontal sums, several rows of coefficients at a time, so
// that x is read once for them.
void TileEmitter::emitHorizontalDot(tile::DotOp op, const Buffer &x, const Buffer &coeff, const Buffer &out) {
  int64_t columns = x.shape[0], contracted = x.shape[1], rows = out.shape[0];
  int64_t length = contracted / scaleGroups(op), lanes = lanesFor(length);
  Value none = splat(vectorOf(b.getF32Type(), lanes), 0.0);
  auto plus = [&](Value y, Value z) { return b.create<arith::AddFOp>(y, z).getResult(); };
  loop(0, columns, 1, [&](Value column) {
    Value set = mul(coefficientSet(op, column), rows), xBegin = mul(column, contracted);
    forRowTiles(rows, [&](Value row, int64_t count) {
      SmallVector<Value> totals, begins;
      for (int64_t r = 0; r < count; ++r) {
        Value at = add(row, constant(r));
        totals.push_back(eval(op.getAcc(), {at, column}, 1));
        begins.push_back(mul(add(set, at), contracted));
      }
      for (int64_t group = 0; group < scaleGroups(op); ++group) {
        SmallVector<Value> zeros(count, none);
        auto sums = accumulate(group * length, (group + 1) * length, lanes, zeros, [&](Value i, auto carried) {
          Value value = loadVector(address(x.ptr, x.element, add(xBegin, i)), x.element, lanes);
          for (auto [r, sum] : llvm::enumerate(carried)) {
            Value factor = loadVector(address(coeff.ptr, coeff.element, add(begins[r], i)), coeff.element, lanes);
            sum = multiplyAdd(value, factor, sum);
          }
        });
        if (lanes > 1) {
          Value together = combineLanes(sums, plus);
          for (auto [r, sum] : llvm::enumerate(sums))
            sum = b.create<vector::ExtractOp>(together, r);
        }
        Value scale = op.getScale() ? eval(op.getScale(), {constant(group), column}, 1) : Value();
        for (auto [sum, total] : llvm::zip(sums, totals))
          total = scale ? multiplyAdd(sum, scale, total) : plus(sum, total);
      }
      for (int64_t r = 0; r < count; ++r)
        storeVector(totals[r], address(out.ptr, out.element, add(mul(add(row, constant(r)), columns), column)));
    });
  });
}

// How packed codes feed a register tile; the powers of two by which masked fields are too large go into the
// coefficients.
TileEmitter::Panel TileEmitter::packedPanel(tile::DotOp op, const Packed &codes, ArrayRef<int64_t> position,
                                            const Buffer &coeff) {
  int64_t contract = op.getContract(), bits = codes.bits, fields = 32 / bits;
  auto result = cast<RankedTensorType>(op.getType());
  int64_t lanes = dotLanes(op);
  SmallVector<float> pattern(fields, 1.0f);
  for (int64_t field = 0; field + 1 < fields; ++field) // the top field is shifted down instead: no sign bit
    pattern[position[field]] = std::ldexp(1.0f, static_cast<int>(-field * bits));
  Panel panel;
  panel.contracted = contract == 0 ? codes.tokens : codes.channels;
  panel.results = result.getDimSize(1);
  panel.lanes = lanes;
  panel.step = fields;
  panel.position.assign(position.begin(), position.end());
  panel.coeff = scaleCoefficients(coeff, pattern);
  auto part = [this, codes](bool token, Value offset) {
    return codeAddress(codes.layout, token ? ::kvq::Dim::Token : ::kvq::Dim::Channel,
                       add(token ? codes.token : codes.channel, offset));
  };
  panel.stepAddress = [=](Value begin) { return part(contract == 0, begin); };
  panel.columnAddress = [=](Value column) { return part(contract != 0, column); };
  panel.load = [=, this](Value codeIndex) {
    Value bytes = div(mul(codeIndex, bits), 8);
    return loadVector(address(codes.base, b.getI8Type(), bytes), b.getI32Type(), lanes);
  };
  Type words = vectorOf(b.getI32Type(), lanes), floats = vectorOf(b.getF32Type(), lanes);
  double center = op.getCenter().convertToFloat();
  panel.extract = [=, this](Value word, int64_t field) -> Value {
    int64_t shift = field * bits;
    bool top = field + 1 == fields;
    Value code = top ? b.create<arith::ShRUIOp>(word, splatInt(words, shift)).getResult()
                     : b.create<arith::AndIOp>(word, splatInt(words, ((int64_t(1) << bits) - 1) << shift));
    Value value = b.create<arith::SIToFPOp>(floats, code);
    if (center == 0)
      return value;
    return b.create<arith::SubFOp>(value, splat(floats, std::ldexp(center, top ? 0 : static_cast<int>(shift))));
  };
  return panel;
}

// f32 rows contracted along the first dimension.
TileEmitter::Panel TileEmitter::floatPanel(tile::DotOp op, const Buffer &values, const Buffer &coeff) {
  int64_t lanes = dotLanes(op);
  Panel panel;
  panel.contracted = values.shape[0];
  panel.results = values.shape[1];
  panel.lanes = lanes;
  panel.step = 1;
  panel.position = {0};
  panel.coeff = coeff;
  panel.stepAddress = [=, this](Value begin) { return mul(begin, values.shape[1]); };
  panel.columnAddress = [](Value column) { return column; };
  panel.load = [=, this](Value at) {
    return loadVector(address(values.ptr, values.element, at), values.element, lanes);
  };
  panel.extract = [](Value loaded, int64_t) { return loaded; };
  return panel;
}

// The operand x, less the center, as f32 in a buffer.
FailureOr<TileEmitter::Buffer> TileEmitter::floatOperand(tile::DotOp op) {
  if (!buffers.contains(op.getX())) {
    auto it = packed.find(op.getX());
    if (it == packed.end()) {
      if (failed(materialize(op.getX())))
        return failure();
    } else {
      FailureOr<Buffer> unpacked = unpackToBuffer(op, it->second, /*asFloat=*/true);
      if (failed(unpacked))
        return failure();
      buffers[op.getX()] = *unpacked;
    }
  }
  Buffer x = buffers.lookup(op.getX());
  double center = op.getCenter().convertToFloat();
  if (center == 0)
    return x;
  Buffer centred = allocate(x.shape, x.element);
  forEachVector(x.shape, /*unroll=*/false, [&](ArrayRef<Value> index, int64_t lanes) {
    Value value = evalBuffer(x, index, lanes);
    value = b.create<arith::SubFOp>(value, splat(value.getType(), center));
    storeVector(value, address(centred.ptr, x.element, add(mul(index[0], x.shape[1]), index[1])));
  });
  return centred;
}

// Whether a dot's codes lie in words that register tiles of f32 take: fields along the contracted dimension, lanes
// along the other.
bool TileEmitter::isOverWords(tile::DotOp op) {
  auto x = cast<RankedTensorType>(op.getX().getType());
  if (!tile::getLayout(x))
    return false;
  int64_t bits = x.getElementTypeBitWidth(), length = x.getDimSize(op.getContract());
  FailureOr<WordForm> form = wordForm(tile::parseLayoutAttr(tile::getLayout(x)), bits);
  int64_t groups = scaleGroups(op);
  ::kvq::Dim contractDim = op.getContract() == 0 ? ::kvq::Dim::Token : ::kvq::Dim::Channel;
  return succeeded(form) && form->fieldDim == contractDim && (length / groups) % (32 / bits) == 0;
}

LogicalResult TileEmitter::emitDot(tile::DotOp op) {
  auto result = cast<RankedTensorType>(op.getType());
  if (tile::getLayout(cast<RankedTensorType>(op.getX().getType())) && !packed.contains(op.getX()))
    return op.emitOpError("has no lowering here: its codes do not come from kvq_tile.codes in this program");
  Buffer out = destinations.contains(op.getResult()) ? destinations.lookup(op.getResult())
                                                     : allocate(result.getShape(), result.getElementType());
  buffers[op.getResult()] = out;
  if (auto it = rounded.find(op.getCoeff()); it != rounded.end())
    return emitIntegerDot(op, packed.lookup(op.getX()), it->second, out), success();
  if (!buffers.contains(op.getCoeff()) && failed(materialize(op.getCoeff())))
    return failure();
  Buffer coeff = buffers.lookup(op.getCoeff());
  if (isOverWords(op)) {
    Packed codes = packed.lookup(op.getX());
    emitPanels(op, packedPanel(op, codes, wordForm(codes.layout, codes.bits)->position, coeff), out);
    return success();
  }
  FailureOr<Buffer> values = floatOperand(op);
  if (failed(values))
    return failure();
  bool transposes = !op.getScale() && values->shape[1] % level.lanes == 0 && dotLanes(op) == level.lanes;
  if (op.getContract() == 1 && transposes)
    emitTransposingDot(op, *values, coeff, out);
  else if (op.getContract() == 1)
    emitHorizontalDot(op, *values, coeff, out);
  else
    emitPanels(op, floatPanel(op, *values, coeff), out);
  return success();
}
