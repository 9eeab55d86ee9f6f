// SPDX-License-Identifier: Apache-2.0
//
// Variables, registers and parameters.
#include "runtime/ptxsim/ptx/parser.h"

#include <bit>

namespace kvq::ptxsim::reader {
namespace {

using Kind = Token::Kind;

struct TypeName {
  std::string_view name;
  Type type;
};
constexpr TypeName kTypes[] = {
    {"pred", Type::Pred}, {"b8", Type::B8},         {"b16", Type::B16}, {"b32", Type::B32}, {"b64", Type::B64},
    {"u8", Type::U8},     {"u16", Type::U16},       {"u32", Type::U32}, {"u64", Type::U64}, {"s8", Type::S8},
    {"s16", Type::S16},   {"s32", Type::S32},       {"s64", Type::S64}, {"f16", Type::F16}, {"f16x2", Type::F16x2},
    {"bf16", Type::BF16}, {"bf16x2", Type::BF16x2}, {"f32", Type::F32}, {"f64", Type::F64},
};

int64_t mostBytes(Space space) { return space == Space::Global ? kMaxGlobalBytes : kMaxOtherBytes; }

} // namespace

Type typeNamed(std::string_view name) {
  for (const TypeName &entry : kTypes)
    if (entry.name == name)
      return entry.type;
  return Type::None;
}

// .extern and .visible say who else may see a name, .weak that another module's definition may replace it: one module
// is all there is. .common would merge definitions.
bool Parser::linkage(Linkage &linkage) {
  while (token_.kind == Kind::DotWord) {
    if (token_.isWord("common"))
      return notImplemented(token_.line, ".common");
    if (!token_.isWord("extern") && !token_.isWord("visible") && !token_.isWord("weak"))
      return true;
    linkage.any = true;
    linkage.isExtern |= token_.isWord("extern");
    advance();
  }
  return status_.isOk();
}

bool Parser::spaceOfWord(std::string_view word, Space &space) const {
  constexpr std::pair<std::string_view, Space> spaces[] = {{"global", Space::Global},
                                                           {"shared", Space::Shared},
                                                           {"local", Space::Local},
                                                           {"const", Space::Const},
                                                           {"param", Space::Param}};
  for (const auto &[name, value] : spaces) {
    if (name == word) {
      space = value;
      return true;
    }
  }
  return false;
}

bool Parser::alignment(int64_t &align) {
  int line = token_.line;
  if (!smallInteger(1, 65536, align, "an alignment"))
    return false;
  return std::has_single_bit(uint64_t(align)) || fail(line, "an alignment must be a power of two");
}

// Behind the word of the space: [.attribute(..)] [.align N] [.v2|.v4|.v8] .type NAME dims [= value] {, NAME ..} ;
bool Parser::variables(Space space, const Linkage &linkage) {
  int64_t align = 0;
  int vector = 1;
  Type type = Type::None;
  while (token_.kind == Kind::DotWord && type == Type::None) {
    if (takeWord("attribute")) {
      if (!attributeDirective())
        return false;
    } else if (takeWord("align")) {
      if (!alignment(align))
        return false;
    } else if (token_.isWord("v2") || token_.isWord("v4") || token_.isWord("v8")) {
      vector = token_.text[1] - '0';
      advance();
    } else {
      type = typeNamed(token_.text);
      if (type == Type::None || type == Type::Pred)
        return notImplemented(token_.line, "a variable of type " + describe(token_));
      advance();
    }
  }
  if (type == Type::None)
    return failHere("the type of a variable");
  do {
    Variable variable;
    std::string_view name;
    variable.space = space;
    variable.type = type;
    variable.isExtern = linkage.isExtern;
    std::vector<int64_t> dims;
    if (!declarator(variable, name, vector, align, dims))
      return false;
    if (take('=')) {
      if (space != Space::Global && space != Space::Const)
        return fail(variable.line, "only .global and .const variables have initialisers, not " + quoted(variable.name));
      if (variable.isExtern)
        return fail(variable.line, "the .extern variable " + quoted(variable.name) + " has an initialiser");
      if (!initialiser(variable, dims))
        return false;
    } else if (variable.elements == 0 && !variable.isExtern) {
      return fail(variable.line, "the array " + quoted(variable.name) + " has no length and no initialiser");
    }
    if (!declareVariable(std::move(variable), name))
      return false;
  } while (take(','));
  return expect(';', "after the declaration of a variable");
}

// NAME dims; a vector type is a last dimension more.
bool Parser::declarator(Variable &variable, std::string_view &name, int vector, int64_t align,
                        std::vector<int64_t> &dims) {
  variable.line = token_.line;
  if (!identifier(name, "a name"))
    return false;
  variable.name = name;
  if (!dimensions(variable, dims))
    return false;
  if (vector > 1)
    dims.push_back(vector);
  int64_t natural = int64_t(bytesOf(variable.type)) * vector;
  variable.align = align ? align : natural;
  int64_t most = mostBytes(variable.space) / bytesOf(variable.type), elements = 1;
  for (int64_t length : dims) {
    if (length && elements > most / length)
      return fail(variable.line,
                  quoted(name) + " has more than " + std::to_string(mostBytes(variable.space)) + " bytes");
    elements *= length ? length : 1; // of a row where the first length is left out
  }
  variable.elements = !dims.empty() && dims[0] == 0 ? 0 : elements;
  return true;
}

// Only the first length may be left out; it is 0 then.
bool Parser::dimensions(Variable &variable, std::vector<int64_t> &dims) {
  while (take('[')) {
    if (dims.size() >= size_t(kMaxNesting))
      return fail(token_.line, "an array of more than " + std::to_string(kMaxNesting) + " dimensions");
    int64_t length = 0;
    if (!token_.is(']') || !dims.empty()) {
      int line = token_.line;
      Constant number;
      if (!constant(number) || !inRange(number, 1, mostBytes(variable.space), length, "the length of an array", line))
        return false;
    }
    dims.push_back(length);
    if (!expect(']', "after the length of an array"))
      return false;
  }
  return status_.isOk();
}

// The definition of an .extern variable, or a second .extern of it, is the same variable.
bool Parser::redeclares(const Variable &variable, Entity entity) {
  if (entity.kind != Entity::Kind::ModuleVariable)
    return false;
  Variable &before = module_.variables[entity.index];
  if ((!before.isExtern && !variable.isExtern) || before.space != variable.space || before.type != variable.type)
    return false;
  if (before.elements != variable.elements && before.elements != 0 && variable.elements != 0)
    return false;
  if (before.isExtern)
    before = variable;
  return true;
}

bool Parser::declareVariable(Variable variable, std::string_view name) {
  if (++variables_ > kMaxVariables)
    return fail(variable.line, "more than " + std::to_string(kMaxVariables) + " variables");
  // Variables of the module that a function declares for itself, such as static ones, live as long as the module.
  bool ofModule = scopes_.size() == 1 || variable.space == Space::Global || variable.space == Space::Const ||
                  (variable.isExtern && variable.space == Space::Shared);
  auto &list = ofModule ? module_.variables : current().variables;
  Entity entity{ofModule ? Entity::Kind::ModuleVariable : Entity::Kind::Variable, uint32_t(list.size())};
  if (scopes_.back().names.declare(name, entity)) {
    list.push_back(std::move(variable));
    return true;
  }
  if (ofModule && redeclares(variable, scopes_.back().names.find(name)))
    return true;
  return fail(variable.line, quoted(variable.name) + " is declared twice");
}

// .reg .type %r<N>, %a, ..;
bool Parser::registers() {
  Type type = token_.kind == Kind::DotWord ? typeNamed(token_.text) : Type::None;
  if (type == Type::None) {
    if (token_.kind != Kind::DotWord)
      return failHere("the type of a register");
    // 8-bit registers exist in the ISA; no compiler declares them.
    return notImplemented(token_.line, "registers of type " + describe(token_));
  }
  advance();
  do {
    if (!addRegisters(type))
      return false;
  } while (take(','));
  return expect(';', "after the declaration of registers");
}

bool Parser::addRegisters(Type type) {
  int line = token_.line;
  std::string_view name;
  if (!identifier(name, "the name of a register"))
    return false;
  int64_t count = 1;
  bool range = take('<');
  if (range && (!smallInteger(0, kMaxRegisters, count, "the number of registers") ||
                !expect('>', "after the number of registers")))
    return false;
  auto &list = current().registers;
  if (list.size() + count > kMaxRegisters || registers_ + count > kMaxModuleRegisters)
    return fail(line, "more than " + std::to_string(kMaxRegisters) + " registers");
  uint32_t first = uint32_t(list.size());
  Scope &scope = scopes_.back().names;
  bool fresh =
      range ? scope.declareRange(name, uint32_t(count), first) : scope.declare(name, {Entity::Kind::Register, first});
  if (!fresh)
    return fail(line, quoted(name) + (range ? ": a register of this range is declared twice" : " is declared twice"));
  for (int64_t i = 0; i < count; ++i)
    list.push_back({range ? std::string(name) + std::to_string(i) : std::string(name), type});
  registers_ += count;
  return true;
}

// .param .type [.ptr [.space] [.align N]] NAME [dims], or .param .align N .b8 NAME[N]. What a pointer points to says
// nothing about the parameter.
bool Parser::param(Variable &variable, std::string_view &name) {
  if (token_.isWord("reg"))
    return notImplemented(token_.line, "parameters in registers");
  if (!takeWord("param"))
    return failHere(".param");
  int64_t align = 0, pointee = 0;
  if (takeWord("align") && !alignment(align))
    return false;
  variable.type = token_.kind == Kind::DotWord ? typeNamed(token_.text) : Type::None;
  if (token_.kind != Kind::DotWord)
    return failHere("the type of a parameter");
  if (variable.type == Type::None || variable.type == Type::Pred)
    return notImplemented(token_.line, "a parameter of type " + describe(token_));
  advance();
  if (takeWord("ptr")) {
    Space space;
    if (token_.kind == Kind::DotWord && spaceOfWord(token_.text, space))
      advance();
    if (takeWord("align") && !alignment(pointee))
      return false;
  } else if (align == 0 && takeWord("align") && !alignment(align)) {
    return false;
  }
  variable.space = Space::Param;
  std::vector<int64_t> dims;
  return declarator(variable, name, 1, align, dims);
}

bool Parser::paramList(std::vector<Variable> &list, std::vector<std::string_view> &names) {
  if (!expect('(', "before parameters"))
    return false;
  if (take(')'))
    return status_.isOk();
  do {
    if (list.size() >= kMaxList || ++variables_ > kMaxVariables)
      return fail(token_.line, "too many parameters");
    list.emplace_back();
    names.emplace_back();
    if (!param(list.back(), names.back()))
      return false;
  } while (take(','));
  return expect(')', "after parameters");
}

} // namespace kvq::ptxsim::reader
