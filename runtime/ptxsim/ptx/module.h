// SPDX-License-Identifier: Apache-2.0
//
// A PTX module as it was read: every name is resolved, nothing is interpreted yet. What the reader cannot place is an
// error of parse(); nothing is dropped except the hints that reader.h lists.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvq::ptxsim {

// Types of registers, variables and parameters, and the types that instructions name as a modifier.
enum class Type : uint8_t {
  None,
  Pred,
  B8,
  B16,
  B32,
  B64,
  U8,
  U16,
  U32,
  U64,
  S8,
  S16,
  S32,
  S64,
  F16,
  F16x2,
  BF16,
  BF16x2,
  F32,
  F64
};
int bytesOf(Type type); // 4 for Pred: a mask of lanes

enum class Space : uint8_t { Generic, Global, Shared, Local, Const, Param };

enum class Special : uint8_t {
  TidX,
  TidY,
  TidZ,
  NtidX,
  NtidY,
  NtidZ,
  CtaidX,
  CtaidY,
  CtaidZ,
  NctaidX,
  NctaidY,
  NctaidZ,
  Laneid,
  Warpid,
  Nwarpid,
  LanemaskEq,
  LanemaskLe,
  LanemaskLt,
  LanemaskGe,
  LanemaskGt,
  DynamicSmemSize,
  TotalSmemSize,
  Gridid,
  Smid,
  Nsmid,
  Clock,
  Clock64,
  ClockHi,
  Globaltimer,
  GlobaltimerLo,
  GlobaltimerHi
};

// A variable in memory or a parameter. `index` of Operand::Symbol names one of Function::variables or, with
// `global` set, of Module::variables.
struct Variable {
  std::string name;
  Space space = Space::Global;
  Type type = Type::B8;
  int64_t elements = 1; // all dimensions; 0: extern with open length (dynamic shared memory)
  int64_t align = 1;    // bytes
  bool isExtern = false;
  bool initialised = false; // has an initialiser; `bytes` is then whole, zeros included
  std::vector<uint8_t> bytes;
  struct Address { // bytes [offset, offset + 8) (or 4) hold the address of a variable of the module
    int64_t offset;
    int size;
    uint32_t variable; // index into Module::variables, or with `function` into Module::functions
    int64_t addend;
    bool generic; // generic(symbol)
    bool function = false;
  };
  std::vector<Address> addresses;
  int line = 0;
  int64_t size() const { return elements * bytesOf(type); }
};

struct Register {
  std::string name; // with the percent sign; scopes may hold the same name twice
  Type type = Type::B32;
};

struct Operand {
  enum class Kind : uint8_t {
    Sink,      // _
    Register,  // index: Function::registers; negated: !%p
    Immediate, // bits; floating: as it was written, see below
    Special,   // index: enum Special
    Symbol,    // the address of a variable, plus offset: as mov's operand
    Label,     // index: Function::labels
    Function,  // index: Module::functions
    Address,   // [base + offset]: elements[0] is a Register, an Immediate (absolute) or a Symbol
    Vector,    // {a, b, ..}: elements; also parentheses of a call
    Pair,      // p|q: elements[0], elements[1]
  };
  enum class Literal : uint8_t { Integer, Float32, Float64 }; // 0f.. keeps its 32 bits, 0d.. and 1.5 their 64 bits
  Kind kind = Kind::Sink;
  Literal literal = Literal::Integer;
  bool negated = false;
  bool global = false; // Symbol: a variable of the module
  uint32_t index = 0;
  uint64_t bits = 0;  // Immediate; an integer in two's complement
  int64_t offset = 0; // Symbol, Address
  std::vector<Operand> elements;
};

struct Instruction {
  int line = 0;
  int32_t guard = -1; // register of the predicate, -1: none
  bool guardNegated = false;
  std::string opcode;                 // "mma"
  std::vector<std::string> modifiers; // "sync", "aligned", "m16n8k16", ...; "L2::128B" is one; hints are already gone
  // As written, results first. Of call always: Vector of results, Function or Register, Vector of arguments (both
  // perhaps empty), and of an indirect call the Label of its prototype.
  std::vector<Operand> operands;
  std::string name() const; // "mma.sync.aligned.m16n8k16"
};

struct Label {
  std::string name;
  uint32_t instruction = 0; // the first instruction behind it; instructions.size() at the end of the body
  int line = 0;
};

struct BranchTargets { // .branchtargets, for brx.idx: an operand of kind Label names the list by its label
  uint32_t label = 0;
  std::vector<uint32_t> labels;
};

struct Prototype { // .callprototype, for indirect calls: the fourth operand of call, of kind Label, names it by its
                   // label
  uint32_t label = 0;
  std::vector<Variable> params, returns;
};

struct Function {
  std::string name;
  bool entry = false;
  bool defined = false; // has a body
  int line = 0, endLine = 0;
  std::vector<Variable> params;  // space Param; of an entry: laid out by kernelParamOffset
  std::vector<Variable> returns; // .func only; space Param
  std::vector<Register> registers;
  std::vector<Variable> variables; // .shared, .local, .param (of calls) of the body; params first, then returns, so
                                   // that a Symbol of the function always indexes this list
  std::vector<Label> labels;
  std::vector<BranchTargets> branchTargets;
  std::vector<Prototype> prototypes;
  std::vector<Instruction> instructions;
  uint32_t maxntid[3] = {0, 0, 0}, reqntid[3] = {0, 0, 0}; // 0: not given
  uint32_t minnctapersm = 0, maxnreg = 0;
};

struct Module {
  std::string file; // for messages
  int versionMajor = 0, versionMinor = 0;
  std::string target; // "sm_80"
  int addressSize = 64;
  std::vector<Variable> variables; // .global, .const, .shared of the module
  std::vector<Function> functions;
};

} // namespace kvq::ptxsim
