// SPDX-License-Identifier: Apache-2.0
//
// TileEmitter: one tile program to native vectors in rolled loops.
//
// How a tile is represented. A tile value is either *lazy*, an expression that is evaluated where it is used, or a
// *buffer*, a row-major array in scratch memory on the stack (or, for a plain load, the loaded memory itself). Asking
// eval(tile, index, lanes) for `lanes` consecutive elements along the last dimension walks the expression down to
// buffers and emits vector code; an element-wise chain therefore costs no memory traffic. Cheap values (constants,
// iota, splats, broadcasts, masks) are always lazy; any other element-wise value is lazy when its one user stands in
// the same block, and a buffer otherwise, so that nothing expensive is computed twice or inside a loop it does not
// belong to.
//
// Why not one vector per tile: a whole tile as one vector is unrolled by LLVM into thousands of instructions. Why not
// linalg and bufferization: the product kvq_tile.dot needs its own register tiles anyway, the rest is under a tenth of
// the time, and this is a fifth of the compile time.
//
// Element types in emitted code: f16 and bf16 are i16 bits (they are only ever converted), index is index, others as
// they are; in memory a bit of a mask is a byte.
#pragma once

#include "codegen/cpu/IntegerForm.h"
#include "codegen/cpu/Target.h"
#include "dialect/tile/Tile.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

#include <functional>

namespace mlir::kvq::cpu {

// Fails with a diagnostic at the first op or value of the kernel that TileEmitter does not take; see CheckTiles.cpp.
LogicalResult checkTiles(func::FuncOp kernel);

// math.roundeven for levels without roundps.
Value emitRoundEven(ImplicitLocOpBuilder &b, Value x);

class TileEmitter {
public:
  TileEmitter(func::FuncOp kernel, const CpuLevel &level);
  // Emits `int32_t kvq_entry(const uint64_t *args, const int64_t *program_id)` before the kernel. The caller erases the
  // kernel. Fails with a diagnostic at the op that has no lowering.
  FailureOr<func::FuncOp> emit();

private:
  // A row-major array of `element`s at `ptr`. Or rows of loaded memory where they lie, which only eval() reads: row r
  // of [rows, columns] begins `rows[r]` elements after `ptr`, `rows` being an array of i64.
  struct Buffer {
    Value ptr;
    SmallVector<int64_t> shape;
    Type element;
    Value rows = {};
  };
  // One plane of a section: bits shift .. shift + bits - 1 of every code, from `offset` bytes after the section's
  // begin.
  struct PackedPlane {
    ::kvq::Layout map;
    int64_t bits, shift, offset;
  };
  // A rectangle of packed codes: where kvq_tile.codes points. `layout` is the map where there is one plane, else empty.
  struct Packed {
    Value base, token, channel;
    ::kvq::Layout layout;
    int64_t bits, tokens, channels;
    SmallVector<PackedPlane> planes;
  };
  // Coefficients as integers: a line of words per set, row and limb (highest first); per set and row a factor, and per
  // group of the contracted dimension what the center takes away.
  struct RoundedCoeff {
    IntegerForm form;
    int64_t rows, groups, words;
    double center;                     // of the codes as the multiplication sees them
    Buffer integers, factors, offsets; // offsets: [set][group][row]
  };
  // What a register tile of kvq_tile.dot needs to know of its packed or float operand; see EmitDot.cpp.
  struct Panel;
  // The same with integers; see EmitIntegerDot.cpp.
  struct IntegerPanel;
  class IntegerSteps;

  // TileEmitter.cpp: the walk over the program.
  LogicalResult emitBlock(Block &block);
  LogicalResult emitOp(Operation &op);
  LogicalResult emitFor(scf::ForOp op);
  LogicalResult emitIf(scf::IfOp op);
  LogicalResult emitRegion(Region &from, Block &to, ArrayRef<Buffer> targets);
  LogicalResult emitYield(Block &body, ArrayRef<Buffer> targets, SmallVectorImpl<Value> &scalars);
  LogicalResult emitScalar(Operation &op);
  void planInPlace(scf::ForOp op, ArrayRef<Buffer> buffers);
  static bool isElementwiseOp(Operation *op);
  bool isLazy(Value tile);

  // EmitMemory.cpp
  LogicalResult emitLoad(tile::LoadOp op);
  LogicalResult emitStore(tile::StoreOp op);
  bool canAlias(tile::LoadOp op);
  void copyRun(Value from, Value to, Type element, int64_t count);
  void zeroRun(Value to, Type element, int64_t count);

  // EmitPrefetch.cpp
  struct PrefetchTurns {
    int64_t count = 0;
    double cost = 0; // of one, in instructions that do the work
  };
  PrefetchTurns prefetchTurns(Operation *op);
  PrefetchTurns prefetchTurns(tile::DotOp op);
  double evaluationCost(Value tile);
  void emitPrefetch(tile::PrefetchOp op);
  void sharePrefetch(tile::PrefetchOp op);
  void prefetchLine(Value line, int64_t begin, int64_t end);
  void prefetchTurn(Operation *op, Value turn);

  // EmitElementwise.cpp
  Value eval(Value tile, ArrayRef<Value> index, int64_t lanes);
  Value evalBroadcast(tile::BroadcastOp op, ArrayRef<Value> index, int64_t lanes);
  Value evalDequantize(tile::DequantizeOp op, ArrayRef<Value> index, int64_t lanes);
  Value evalCoeff(tile::CoeffOp op, ArrayRef<Value> index, int64_t lanes);
  Value evalBuffer(const Buffer &buffer, ArrayRef<Value> index, int64_t lanes);
  Value evalOp(Operation &op, ArrayRef<Value> operands, int64_t lanes);
  LogicalResult materialize(Value tile);
  void writeInto(Value tile, const Buffer &target);
  void emitConstant(arith::ConstantOp op);

  // EmitReduce.cpp
  // Rows of a tile that are reduced together: a horizontal operation for all of them, and chains of operations that do
  // not wait for each other.
  int64_t rowsAtOnce() const { return level.lanes == 16 ? 8 : 4; } // two chains and more for each in registers
  LogicalResult emitReduce(tile::ReduceOp op);
  SmallVector<Value> reduceVectors(tile::ReduceOp op, ArrayRef<SmallVector<Value>> at, int64_t lanes, int64_t step);
  void reduceMatrix(tile::ReduceOp op, const Buffer &target, int64_t lanes);
  void reduceRows(tile::ReduceOp op, const Buffer &target);
  bool hasRowsOfVectors(Value tile);
  SmallVector<tile::ReduceOp> reductionsBesides(Value tile);
  void writeReduced(Value tile, const Buffer &target, MutableArrayRef<tile::ReduceOp> ops,
                    function_ref<Value(Value, Value, int64_t)> value);
  void forRowTiles(int64_t rows, function_ref<void(Value, int64_t)> body);
  SmallVector<Value> accumulate(int64_t begin, int64_t end, int64_t step, ArrayRef<Value> initial,
                                function_ref<void(Value, MutableArrayRef<Value>)> body);
  Value combineLanes(ArrayRef<Value> vectors, function_ref<Value(Value, Value)> combine);
  void storeFirst(Value vector, int64_t count, Value ptr);

  // EmitDot.cpp
  LogicalResult emitDot(tile::DotOp op);
  int64_t dotLanes(tile::DotOp op);
  static int64_t scaleGroups(tile::DotOp op);
  bool cutsOnce(tile::DotOp op);
  std::pair<int64_t, int64_t> registerTile(tile::DotOp op);
  Panel packedPanel(tile::DotOp op, const Packed &codes, ArrayRef<int64_t> position, const Buffer &coeff);
  Panel floatPanel(tile::DotOp op, const Buffer &values, const Buffer &coeff);
  FailureOr<Buffer> floatOperand(tile::DotOp op);
  bool isOverWords(tile::DotOp op);
  void emitPanels(tile::DotOp op, const Panel &panel, const Buffer &out);
  void emitRegisterTile(tile::DotOp op, const Panel &panel, const Buffer &out, Value row, int64_t rows, Value column,
                        int64_t vectors, Value firstTurn);
  void emitTransposingDot(tile::DotOp op, const Buffer &x, const Buffer &coeff, const Buffer &out);
  void emitHorizontalDot(tile::DotOp op, const Buffer &x, const Buffer &coeff, const Buffer &out);
  Buffer scaleCoefficients(const Buffer &coeff, ArrayRef<float> pattern);
  Value coefficientSet(tile::DotOp op, Value column);

  // EmitCoeff.cpp
  IntegerForm integerFormOf(tile::DotOp op);
  tile::DotOp integerDotOf(tile::CoeffOp op);
  bool takesIntegers(tile::DotOp op);
  LogicalResult emitRounded(tile::CoeffOp op, tile::DotOp dot);
  void roundRows(tile::CoeffOp op, const RoundedCoeff &coeff, Value set, Value row, int64_t count);
  Value roundVector(Value values, Value perUnit);
  void storeCoefficients(const RoundedCoeff &coeff, Value integers, Value line, Value at);

  // EmitIntegerDot.cpp
  void emitIntegerDot(tile::DotOp op, const Packed &codes, const RoundedCoeff &coeff, const Buffer &out);
  void emitIntegerTile(tile::DotOp op, const IntegerPanel &panel, const Buffer &out, Value row, Value column,
                       Value firstTurn);
  SmallVector<Value> integerGroup(const IntegerPanel &panel, IntegerSteps &steps, Value group, Value firstTurn);
  void cutColumnPanel(tile::DotOp op, const IntegerPanel &panel, Value column, Value firstTurn);
  Value cutOperand(const IntegerPanel &panel, ArrayRef<Value> words, int64_t index);
  SmallVector<SmallVector<Value>> loadWords(const IntegerPanel &panel, Value begin,
                                            ArrayRef<SmallVector<Value>> columnAddresses);
  SmallVector<SmallVector<Value>> columnAddresses(const IntegerPanel &panel, Value column);
  bool isOverByteParts(tile::DotOp op);
  static int64_t codesPerStep(ArrayRef<PackedPlane> planes);

  // EmitCodes.cpp
  Value codeAddress(const ::kvq::Layout &layout, ::kvq::Dim dim, Value index);
  FailureOr<Buffer> unpackToBuffer(Operation *op, const Packed &packed, bool asFloat);
  struct WordBlock;
  static SmallVector<PackedPlane> packedPlanes(const ::kvq::SectionLayout &layout);
  Value unpackCode(const Packed &packed, Value token, Value channel);
  Value unpackRun(const Packed &packed, const WordBlock &block, Value token, Value channel, int64_t lanes);

  // EmitPack.cpp: store_codes.
  struct PackJob;
  LogicalResult emitStoreCodes(tile::StoreCodesOp op);
  Value planeField(const PackedPlane &plane, int64_t codeBits, Value code);
  Value wordAddress(const PackJob &job, const PackedPlane &plane, Value row, Value channel);
  Value coveredBits(const PackJob &job, Value row, int64_t lanes, int64_t mask);
  void mergeWords(Value words, Value covered, Value at);
  void packAcrossChannels(const PackJob &job, ArrayRef<WordBlock> blocks, int64_t codeBits, Value row, Value channel,
                          int64_t lanes);
  void packAcrossTokens(const PackJob &job, ArrayRef<WordBlock> blocks, int64_t codeBits, Value row, Value channel,
                        int64_t tokens, int64_t channels);
  void packOneByOne(const PackJob &job, ArrayRef<PackedPlane> planes, int64_t codeBits);
  std::optional<std::array<int64_t, 2>> packStep(tile::StoreCodesOp op);
  int64_t packSteps(tile::StoreCodesOp op);
  void packBlocks(tile::StoreCodesOp op, const PackJob &job, std::array<int64_t, 2> step,
                  function_ref<void(Value, Value)> body);
  SmallVector<Value> combineRuns(ArrayRef<Value> rows, int64_t run, function_ref<Value(Value, Value)> combine);

  // EmitMath.cpp: functions that LLVM would turn into calls, on a scalar or a vector.
  Value emitExp2(Value x, bool approximate);
  Value emitExp2ByScale(Value x, bool approximate);
  Value emitPolynomial(Value x, ArrayRef<double> coefficients, double factor);
  Value emitLog2(Value x);
  Value emitExtend(Value bits, bool bfloat);
  Value emitTruncate(Value x, bool bfloat);
  Value multiplyAdd(Value a, Value b, Value c);

  // Shared helpers.
  Value constant(int64_t value) { return b.create<arith::ConstantIndexOp>(value); }
  Value splat(Type type, double value);
  Value splatInt(Type type, int64_t value);
  Type scalarType(Type type);                 // of a scalar in emitted code
  TypedAttr scalarConstant(TypedAttr value);  // a constant of that type
  Type storage(Type element);                 // in memory: f16, bf16 -> i16, index -> i64, i1 -> i8
  Type vectorOf(Type element, int64_t lanes); // the element itself for one lane
  Value address(Value ptr, Type element, Value index);
  Value loadVector(Value ptr, Type element, int64_t lanes);
  void storeVector(Value value, Value ptr);
  Value add(Value a, Value c);
  Value mul(Value a, int64_t factor);
  Value div(Value a, int64_t divisor);
  int64_t lanesFor(int64_t extent); // widest native vector that divides the extent
  // The same, up to four native vectors: for loops that carry one, so that their additions do not wait for each other.
  int64_t wideLanesFor(int64_t extent);
  Buffer allocate(ArrayRef<int64_t> shape, Type element);
  void loop(int64_t begin, int64_t end, int64_t step, function_ref<void(Value)> body);
  void loop(Value begin, Value end, function_ref<void(Value)> body);
  // Calls body(index, lanes) for every vector of a tile of that shape; `unroll`: a few times in each turn of the loop.
  void forEachVector(ArrayRef<int64_t> shape, bool unroll, function_ref<void(ArrayRef<Value>, int64_t)> body);
  // The largest divisor up to a limit.
  static int64_t largestDivisor(int64_t of, int64_t limit);
  // Elements of one turn of a loop over so many: up to four vectors that divide it.
  static int64_t unrolled(int64_t count, int64_t lanes) {
    return lanes * (count % (4 * lanes) == 0 ? 4 : count % (2 * lanes) == 0 ? 2 : 1);
  }

  func::FuncOp kernel;
  const CpuLevel &level;
  tile::ScheduleAttr schedule; // may be null
  ImplicitLocOpBuilder b;
  Block *entry = nullptr;
  IRMapping scalars;
  Value programId;
  DenseMap<Value, Buffer> buffers;
  DenseMap<Value, Packed> packed;
  DenseMap<Value, RoundedCoeff> rounded;
  DenseMap<Value, Buffer> destinations; // dots that write straight into a loop's buffer
  // Memory of buffers, on the stack. What a region allocates serves the regions after it again.
  struct Scratch {
    Value ptr;
    int64_t bytes;
  };
  SmallVector<Scratch> scratchInUse, scratchFree;
  int64_t scratchBytes = 0; // of all
  // What the operations after a prefetch bring in of it.
  struct PrefetchShare {
    int64_t first = 0, lines = 0, turns = 0;
  };
  struct PrefetchPiece {
    Value base;  // where line 0 would be
    int64_t end; // behind its last line
  };
  struct Prefetch {
    SmallVector<PrefetchPiece> pieces;
    bool open = false; // more pieces follow
    DenseMap<Operation *, PrefetchShare> shares;
  } prefetch;
  static constexpr int64_t kFewestTurns = 8; // of an operation that takes part
};

} // namespace mlir::kvq::cpu
