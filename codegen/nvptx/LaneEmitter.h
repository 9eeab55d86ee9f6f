// SPDX-License-Identifier: Apache-2.0
//
// LaneEmitter: one tile program, whose tiles have lane layouts, to the code of one lane. A tile becomes the registers
// that a lane has of it: one value an element, or a vector<2xf16> where the layout pairs halves. One rule for each op;
// an op without a rule is an error that says what is supported.
//
// One warp runs one part of a program, so one rule alone needs a barrier and shared memory, kvq_tile.reduce_parts
// (EmitParts.cpp): lanes exchange elements by shuffles.
#pragma once

#include "codegen/nvptx/Accumulation.h"
#include "codegen/nvptx/Fragment.h"
#include "codegen/nvptx/NvptxTarget.h"
#include "codegen/nvptx/Words.h"
#include "dialect/tile/Tile.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "llvm/ADT/MapVector.h"

namespace mlir::kvq::nvptx {

// Of a block. The warps of a program (kvq_tile.schedule) have neighbouring numbers along y, programs along x.
inline constexpr int64_t kBlockThreads = 128;

class LaneEmitter {
public:
  LaneEmitter(func::FuncOp kernel, UnpackForm form)
      : kernel(kernel), form(form), accumulation(kernel), written(writtenArguments(kernel)),
        b(kernel.getLoc(), kernel) {}
  // Emits kvq_entry before the kernel: one i64 for each argument, then the number of programs (kernel_abi.h). The
  // caller erases the kernel. Fails with a diagnostic at the op that has no lowering.
  LogicalResult emit();

private:
  using Registers = SmallVector<Value>;
  // A rectangle of packed codes: where kvq_tile.codes points.
  struct Packed {
    Value base, token, channel;
    WordMap map;
    bool isReadOnly;
    int64_t alignment; // of base, in bytes
  };
  // Words that a lane has loaded already, by their place in the tile.
  using LoadedWords = DenseMap<int64_t, Value>;

  // LaneEmitter.cpp: the walk over the program.
  void emitPrologue(LLVM::LLVMFuncOp entry);
  LogicalResult emitBlock(Block &block);
  LogicalResult emitOp(Operation &op);
  LogicalResult emitFor(scf::ForOp op);
  LogicalResult emitIf(scf::IfOp op);
  LogicalResult emitScalar(Operation &op);
  LogicalResult emitRegion(Region &from, Block &to, function_ref<void(SmallVectorImpl<Value> &)> yield);
  void flatten(ValueRange values, SmallVectorImpl<Value> &flat);
  void bind(ValueRange values, ValueRange &flat);

  // EmitElements.cpp
  LogicalResult emitConstant(arith::ConstantOp op);
  LogicalResult emitElementwise(Operation &op);
  void emitSplat(tensor::SplatOp op);
  void emitIota(tile::IotaOp op);
  void emitBroadcast(tile::BroadcastOp op);
  Value byLanes(const tile::LaneLayout &lanes, ArrayRef<int> dims, SmallVector<int64_t> index,
                function_ref<Value(ArrayRef<int64_t>)> at);
  Registers reduced(tile::ReduceKind kind, ArrayRef<Value> source, const tile::RegisterFile &from,
                    const tile::RegisterFile &to, int dim);
  void emitReduce(tile::ReduceOp op);
  Value combine(tile::ReduceKind kind, Value a, Value c);

  // EmitParts.cpp
  Value partId();
  Value exchange();
  void waitForParts();
  Value here(Value value);
  void emitReduceParts(tile::ReducePartsOp op);

  // EmitConvert.cpp
  void emitConvert(tile::ConvertOp op);
  Registers converted(ArrayRef<Value> from, const tile::RegisterFile &source, const tile::RegisterFile &target);
  Registers repaired(ArrayRef<Value> from, const tile::RegisterFile &source, const tile::RegisterFile &target);
  Value transposed(Value pairs);
  Registers shuffled(ArrayRef<Value> from, const tile::RegisterFile &source, const tile::RegisterFile &target);
  Value shuffle(StringRef kind, Value value, Value lane);

  // EmitAccess.cpp
  void emitLoad(tile::LoadOp op);
  void emitStore(tile::StoreOp op);
  void emitPrefetch(tile::PrefetchOp op);
  struct Access;
  Access accessOf(Value ptr, Value offset, Value mask, Type type);
  static SmallVector<SmallVector<SmallVector<int64_t>>> runsOf(const Access &access);
  Value address(const Access &access, int64_t offsetRegister, ArrayRef<int64_t> base);
  Registers loadRun(const Access &access, ArrayRef<int64_t> numbers);
  void storeRun(const Access &access, ArrayRef<int64_t> numbers, ArrayRef<Value> values);
  Registers readIf(Value condition, Type element, size_t count, function_ref<Registers()> read);
  static DenseSet<Value> writtenArguments(func::FuncOp kernel);
  bool isReadOnly(Value ptr) const;
  Value firstOfRepeated(const tile::LaneLayout &layout);

  // EmitWaiting.cpp
  bool canWait(Operation *op);
  void wait(Operation *op);
  Value registerOf(Value tile, int64_t number);
  Value elementOf(Value tile, ArrayRef<int64_t> index);
  Value makeConverted(tile::ConvertOp op, int64_t number);
  void makeLoaded(tile::LoadOp op, int64_t number);
  Registers loadRunIf(const Access &access, SmallVector<int64_t> index, ArrayRef<int64_t> numbers);
  static int64_t partner(const Access &access, SmallVector<int64_t> index);

  // EmitCodes.cpp
  LogicalResult emitCodes(tile::CodesOp op);
  LogicalResult emitUnpack(tile::UnpackOp op);
  LogicalResult emitDequantize(tile::DequantizeOp op);
  LogicalResult emitStoreCodes(tile::StoreCodesOp op);
  static std::array<int64_t, 2> indexOf(tile::TileBit bit);
  static bool lanesAlign(const Packed &codes, const tile::LaneLayout &lanes);
  Value coveredBits(tile::StoreCodesOp op, const tile::RegisterFile &file, ArrayRef<std::pair<int64_t, int64_t>> codes,
                    int64_t bits);
  void storeWords(Value to, ArrayRef<Value> values, ArrayRef<Value> covered);
  Value beginShift(const Packed &codes);
  Value wordAddress(const Packed &codes, const tile::LaneLayout &lanes, int64_t word);
  Value laneWords(const WordMap &map, const tile::LaneLayout &lanes);
  Value laneShift(const WordMap &map, const tile::LaneLayout &lanes);
  Value loadWord(const Packed &codes, const tile::LaneLayout &lanes, ArrayRef<int64_t> words, int64_t word,
                 LoadedWords &loaded);
  Value codeAt(const Packed &codes, const tile::RegisterFile &file, ArrayRef<int64_t> index, ArrayRef<int64_t> words,
               LoadedWords &loaded);

  // EmitProduct.cpp
  struct Product;
  LogicalResult emitCoeff(tile::CoeffOp op);
  LogicalResult emitDot(tile::DotOp op);
  void emitSmallDot(tile::DotOp op);
  using Sums = llvm::MapVector<std::pair<int64_t, int64_t>, Value>; // by index along x and row
  Product fragmentsOf(tile::DotOp op);
  Product productOf(tile::DotOp op);
  static SmallVector<SmallVector<int64_t>> clustersOf(const Product &product);
  Sums clusterSums(Product &product, ArrayRef<int64_t> blocks, ArrayRef<int64_t> steps, bool fromMiddle = false,
                   int64_t group = 0);
  Value bRegister(Product &product, int64_t set, int64_t row, int64_t k, bool rest);
  Value aRegister(Product &product, int64_t m, int64_t k, bool rest);
  Value codesRegister(Product &product, int64_t m, int64_t k);
  Value maskedOr(Value word, int64_t mask, Value bits);
  Value halves(Value low, Value high, bool rest);
  void addProducts(Product &product, int64_t set, int64_t row, ArrayRef<int64_t> ks, bool restOfA,
                   function_ref<SmallVector<Value>(int64_t k, bool rest)> operands, MutableArrayRef<Value> sums,
                   SmallVectorImpl<Value> *kept = nullptr);
  void addKept(ArrayRef<Value> kept, MutableArrayRef<Value> sums);
  Value launchZero();
  Value zeroBehind(ArrayRef<Value> sums);
  ArrayRef<Value> onesOperand();
  std::array<Value, 2> sumsOfCoefficients(Product &product, int64_t set, int64_t row, ArrayRef<int64_t> steps);
  void addCoefficients(Product &product, int64_t set, int64_t row, ArrayRef<int64_t> steps, MutableArrayRef<Value> sums,
                       SmallVectorImpl<Value> *kept = nullptr);
  Value sumOfCoefficients(Product &product, int64_t set, int64_t row, int64_t group = 0);
  static double middleOf(const Product &product, int64_t m);
  Value centred(Product &product, int64_t set, int64_t row, Value total, int64_t group = 0);
  void emitConstantRow(tile::DotOp op, double factor);
  void addProducts(Product &product, Product &upper, int64_t set, int64_t m, int64_t row, ArrayRef<int64_t> ks,
                   MutableArrayRef<Value> sums, SmallVectorImpl<Value> *kept = nullptr);
  void multiplyCluster(tile::DotOp op, Product &product, ArrayRef<int64_t> blocks, Registers &result);
  std::pair<Value, double> withoutRowsAbove(const Product &product, const Sums &sums, int64_t m, int64_t row);
  static double powerOf(const Product &product, int64_t m);
  static int64_t withoutRowFields(const Product &product, int64_t m);
  static int64_t withRowField(const Product &product, int64_t m, int64_t field);
  Value accumulated(Value total, Value value, double power, Value scale);

  // EmitUnscaled.cpp
  // A tile of which each register stands for itself times a power of two, plus a bias.
  struct Unscaled {
    Registers values, biases;
    SmallVector<int> powers;
  };
  void emitUnscaled(tile::DotOp op, Product &product);
  Registers largestOf(const Unscaled &tile, const tile::RegisterFile &from, const tile::RegisterFile &to, int dim);
  void emitMultiplyAdd(math::FmaOp op);

  // EmitPair.cpp
  void emitPair(tile::DotOp op, const ProductPair &pair);
  bool isReadWhole(tile::DotOp op);
  void emitReadPair(tile::DotOp op, const ProductPair &pair);
  Value rowOfPair(tile::DotOp op, tile::DotOp first, Value isFirst);
  SmallVector<Value> loadPairs(Value row, int64_t step);

  // EmitCarried.cpp
  struct Carried {
    CarriedSum sum;
    Registers products, bias;
    const ProductPair *pair = nullptr; // whose results, lane by lane, the bias is
  };
  Carried *carriedAsBias(const ProductPair &pair);
  Value sumOfPair(const ProductPair &pair, Value own);
  void beginCarried(const CarriedSum &sum, SmallVectorImpl<Value> &inits);
  Registers beginProducts(const Carried &parts, ArrayRef<Value> init);
  Carried takeCarried(const CarriedSum &sum, ValueRange &flat);
  void carryCluster(Carried &parts, Product &product, ArrayRef<int64_t> blocks);
  void carryBias(Carried &parts, Product &product);
  void yieldCarried(const Carried &parts, SmallVectorImpl<Value> &yielded);
  Registers endCarried(const Carried &parts);

  // Shared helpers.
  static tile::RegisterFile fileOf(Type tile);
  static tile::RegisterFile fileOf(Value tile) { return fileOf(tile.getType()); }
  Type registerType(Type tile) const; // of one register
  const Registers &registersOf(Value tile) { return registers.find(tile)->second; }
  Value scalarOf(Value value) { return scalars.lookup(value); }
  Value constant(int64_t value) { return arith::ConstantIndexOp::create(b, value); }
  Value constant32(int64_t value) { return arith::ConstantIntOp::create(b, b.getI32Type(), value); }
  Value zeroOf(Type type) { return arith::ConstantOp::create(b, type, b.getZeroAttr(type)); }
  Value intrinsic(StringRef name, Type result, ValueRange operands);
  Value pair(Value low, Value high);     // two f16 in a register
  Value half(Value pair, int64_t which); // 0: low
  Value element(ArrayRef<Value> from, const tile::RegisterFile &file, ArrayRef<int64_t> index);
  Value uniform(Value value);
  // What the lane adds to the index along a dimension: an index value, made once at the kernel's beginning.
  Value laneOffset(const tile::LaneLayout &layout, int dim);
  Value laneBit(int bit); // of the lane's number, as i1
  // What `make` makes, at the beginning of the body and once.
  Value atBeginning(StringRef key, function_ref<Value()> make);

  func::FuncOp kernel;
  const UnpackForm form;
  const Accumulation accumulation;
  const DenseSet<Value> written; // arguments, through pointers
  ImplicitLocOpBuilder b;
  int64_t parts = 1;            // of a program
  bool multipliesRests = false; // of halves, in some product
  int64_t exchanges = 0;        // of words between them
  IRMapping scalars;
  DenseMap<Value, Registers> registers;
  DenseSet<Value> waiting; // tiles of which registers may be missing
  DenseMap<Value, Packed> packed;
  DenseMap<Value, Unscaled> unscaled;
  DenseMap<Operation *, Carried> carried; // by product, while its loop is emitted
  Value program, lane, programs;          // index; i32; i64
  Registers ones;                         // an operand of ones, once it was needed
  Block *body = nullptr;
  llvm::StringMap<Value> laneValues; // by atBeginning
};

} // namespace mlir::kvq::nvptx
