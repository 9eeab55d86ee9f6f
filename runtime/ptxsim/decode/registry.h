// SPDX-License-Identifier: Apache-2.0
//
// The table of instructions. A line of it names forms of one instruction by a pattern, says what its operands are, and
// which handler executes it:
//
//     table.add("add[.rn|.rz|.rm|.rp][.ftz][.sat].f32", "f32 = f32 f32", OpClass::Fp32, chooseAddF32);
//
// In a pattern [.a|.b] is optional, {.a|.b} is a choice that must be made, everything else is literal; order matters,
// as in the ISA. A name that no pattern gives is not implemented.
//
// Operands: results = sources, separated by blanks. Each is TYPE, of Type's names in lower case (pred b16 b32 b64 u8 ..
// f16 f16x2 bf16 bf16x2 f32 f64), then
//     xN     a vector of N registers {a, b, ..}; the handler sees N slots
//     *      the register may be wider than the type (ld, st, cvt)
//     ?      may be missing (sources: at the end only; the handler compares op.sourceCount)
//     |TYPE  a second result behind a bar, p|q, which may be missing; then its slot is a sink
// or  addr   [base + offset]: one slot of op.addressBytes bytes a lane, and op.offset
//     imm    an integer constant: op.immediate, no slot
//     sym    the address of a variable, as a constant of 64 bits
// Several forms may have one name and different operands (mov of a register or of a vector): the first that fits is
// taken. A sink "_" as a result is a slot that nobody reads. An immediate where a register is allowed becomes a
// constant of the operand's type: 0f3F800000 and 1.0 become f16, f32 or f64 as asked.
#pragma once

#include "runtime/ptxsim/decode/program.h"

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace kvq::ptxsim {

enum class OperandKind : uint8_t { Value, Address, Immediate, Symbol };
struct OperandSpec {
  OperandKind kind = OperandKind::Value;
  Type type = Type::None;
  int vector = 1;
  bool wide = false, optional = false;
  Type second = Type::None; // p|q
};

// One concrete name: which alternative each group of the pattern took, in order; -1: the optional group is absent.
class Form {
public:
  std::string name;
  std::vector<int> choice;
  std::vector<OperandSpec> results, sources;
  OpClass opClass = OpClass::Alu;
  Flow flow = Flow::None;
  Space space = Space::Generic;
  Handler handler = nullptr;
  int member = -1;
  int tag = 0; // for whoever reads the form, as an enumeration of theirs
  bool propagates = false;
  uint32_t readers = ~0u;               // lanes whose sources are read: ldmatrix.x1 takes addresses from eight
  bool ordersBlocks = false;            // global atomics, fences, volatile: blocks must run one after the other
  bool has(const char *modifier) const; // one of the name's modifiers
};

// May return null for a combination of alternatives that does not exist: it is then not implemented.
using Choose = std::function<Handler(const Form &)>;

class Table {
public:
  // Further settings of every form that an entry gives.
  struct Added {
    std::vector<std::function<void(Form &)>> *settings;
    const Added &flow(Flow flow, int member = -1) const; // Collective, WarpSync: index of the source with the mask
    const Added &space(Space space) const;
    const Added &tag(int tag) const;
    const Added &propagates() const;
    const Added &ordersBlocks() const;
    const Added &each(std::function<void(Form &)> setting) const;
  };
  // The handler may be null for Flow::Branch and its like.
  Added add(const char *pattern, const char *operands, OpClass opClass, Handler handler);
  Added add(const char *pattern, const char *operands, OpClass opClass, const Choose &choose);
  // The forms of this name, in the order of their addition; empty: not implemented. Thread-safe.
  const std::vector<std::unique_ptr<Form>> &find(const std::string &name) const;
  // Whether it is a name, or the beginning of one up to a dot; for error messages.
  bool begins(const std::string &prefix) const;

private:
  struct Entry {
    std::string pattern, operands;
    OpClass opClass;
    Choose choose;
    std::vector<std::function<void(Form &)>> settings;
  };
  std::deque<Entry> entries_;
  std::unordered_map<std::string, std::vector<const Entry *>> byOpcode_;
  // A kernel uses a few dozen of tens of thousands of names, so that a form is made when it is first asked for.
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, std::vector<std::unique_ptr<Form>>> forms_;
};

// All instructions; made once.
const Table &instructions();

// One function for each subject, in isa/.
void addInteger(Table &); // isa/integer.cpp: add sub mul mad mul24 div rem abs neg min max sad addc subc ...
void addLogic(Table &);   // and or xor not cnot lop3 shl shr shf prmt bfi bfe bfind brev clz popc dp4a dp2a szext bmsk
void addFloat(Table &);   // f32 and f64 arithmetic, div rcp sqrt, testp copysign
void addApproximate(Table &); // ex2 lg2 rsqrt sin cos tanh rcp.approx div.approx/full sqrt.approx
void addHalf(Table &);        // f16 f16x2 bf16 bf16x2
void addConvert(Table &);     // cvt, cvt.pack
void addCompare(Table &);     // setp set selp slct, of every type; predicate logic
void addMove(Table &);        // mov of every kind, vectors packed and taken apart, cvta, isspacep, activemask
void addMemory(Table &);      // ld st ldu prefetch discard membar fence, mbarrier
void addAtomic(Table &);      // atom red
void addAsyncCopy(Table &);   // cp.async
void addMatrixLoad(Table &);  // ldmatrix stmatrix
void addMatrix(Table &);      // mma movmatrix
void addWarp(Table &);        // shfl vote match redux elect
void addControl(Table &);     // bra brx ret exit trap bar barrier bar.warp nanosleep

} // namespace kvq::ptxsim
