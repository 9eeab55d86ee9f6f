// SPDX-License-Identifier: Apache-2.0
//
// Values of .global and .const variables: lists as in C, where what is not given is zero.
#include "runtime/ptxsim/ptx/parser.h"

#include <cstring>

namespace kvq::ptxsim::reader {
namespace {

using Kind = Token::Kind;
using Literal = Operand::Literal;

bool isFloat(Type type) { return type == Type::F32 || type == Type::F64; }

// The bits of a floating-point constant as f32 or f64.
uint64_t floatBits(const Constant &value, Type type) {
  double wide = value.literal == Literal::Float32 ? double(__builtin_bit_cast(float, uint32_t(value.bits)))
                                                  : __builtin_bit_cast(double, value.bits);
  bool same = (value.literal == Literal::Float32) == (type == Type::F32); // as it stands: a NaN keeps its bits
  if (same)
    return value.bits;
  return type == Type::F32 ? __builtin_bit_cast(uint32_t, float(wide)) : __builtin_bit_cast(uint64_t, wide);
}

bool fits(const Constant &value, int bytes) {
  if (bytes == 8)
    return true;
  int bits = bytes * 8;
  if (value.isUnsigned)
    return value.bits >> bits == 0;
  int64_t number = int64_t(value.bits);
  return number >= -(int64_t(1) << (bits - 1)) && number < int64_t(1) << bits;
}

} // namespace

// `dims` as they were written: dims[0] is 0 where the list decides the length.
bool Parser::initialiser(Variable &variable, std::vector<int64_t> dims) {
  int width = bytesOf(variable.type);
  bool open = !dims.empty() && dims[0] == 0;
  if (!open) {
    if (variable.size() > kMaxInitialisedBytes - initialised_)
      return fail(variable.line,
                  "initialised variables have more than " + std::to_string(kMaxInitialisedBytes) + " bytes");
    initialised_ += variable.size();
    variable.bytes.resize(variable.size());
  }
  variable.initialised = true;
  if (dims.empty())
    return initialiserValue(variable, 0);
  int64_t used = 0;
  if (!initialiserList(variable, dims, 0, 0, used))
    return false;
  if (!open)
    return true;
  int64_t row = 1;
  for (size_t i = 1; i < dims.size(); ++i)
    row *= dims[i];
  variable.elements = (used + row - 1) / row * row;
  if (variable.elements == 0)
    return fail(variable.line, "the array " + quoted(variable.name) + " has no length and no values");
  if (variable.elements > kMaxInitialisedBytes / width)
    return fail(variable.line,
                "initialised variables have more than " + std::to_string(kMaxInitialisedBytes) + " bytes");
  variable.bytes.resize(variable.size());
  return true;
}

// The braces of dimension `level`, whose first element is `begin`; a list may also run on without inner braces.
bool Parser::initialiserList(Variable &variable, const std::vector<int64_t> &dims, size_t level, int64_t begin,
                             int64_t &used) {
  int64_t row = 1;
  for (size_t i = level + 1; i < dims.size(); ++i)
    row *= dims[i];
  int64_t most = dims[level] ? dims[level] * row : INT64_MAX;
  if (!expect('{', "before the values of an array"))
    return false;
  used = 0;
  while (!token_.is('}')) {
    if (used >= most)
      return fail(token_.line, "too many values for " + quoted(variable.name));
    if (token_.is('{')) {
      if (level + 1 >= dims.size() || used % row)
        return fail(token_.line, "braces that no dimension of " + quoted(variable.name) + " has");
      int64_t inner = 0;
      if (!initialiserList(variable, dims, level + 1, begin + used, inner))
        return false;
      used += row;
    } else {
      if (!initialiserValue(variable, begin + used))
        return false;
      ++used;
    }
    if (!take(','))
      break;
  }
  return expect('}', "after the values of an array");
}

bool Parser::initialiserValue(Variable &variable, int64_t element) {
  if (token_.kind == Kind::Identifier && token_.text != "WARP_SZ")
    return initialiserSymbol(variable, element);
  int line = token_.line;
  Constant value;
  if (!constant(value))
    return false;
  if (token_.is('('))
    return notImplemented(line, "a masked address in an initialiser");
  return storeConstant(variable, element, value, line);
}

bool Parser::storeConstant(Variable &variable, int64_t element, const Constant &value, int line) {
  int width = bytesOf(variable.type);
  uint64_t bits = value.bits;
  bool floating = value.literal != Literal::Integer;
  if (isFloat(variable.type)) {
    if (!floating)
      return fail(line, "a floating-point variable takes floating-point constants such as 0f3F800000");
    bits = floatBits(value, variable.type);
  } else if (floating && width != (value.literal == Literal::Float32 ? 4 : 8)) {
    return fail(line, "a floating-point constant does not fit a variable of " + std::to_string(width) + " bytes");
  } else if (!floating && !fits(value, width)) {
    return fail(line, "an integer that does not fit " + std::to_string(width) + " bytes");
  }
  size_t place = size_t(element) * width;
  if (place + width > variable.bytes.size()) { // an array whose length the list decides
    initialised_ += int64_t(place + width - variable.bytes.size());
    if (initialised_ > kMaxInitialisedBytes)
      return fail(line, "initialised variables have more than " + std::to_string(kMaxInitialisedBytes) + " bytes");
    variable.bytes.resize(place + width);
  }
  for (int i = 0; i < width; ++i)
    variable.bytes[place + i] = uint8_t(bits >> 8 * i);
  return true;
}

// SYMBOL [+ N] or generic(SYMBOL) [+ N]; the bytes are zero until the module is loaded.
bool Parser::initialiserSymbol(Variable &variable, int64_t element) {
  int line = token_.line;
  Variable::Address address{};
  std::string_view name;
  if (!identifier(name, "a value"))
    return false;
  address.generic = name == "generic" && take('(');
  if (address.generic && !identifier(name, "the name of a variable"))
    return false;
  Entity entity = resolve(name);
  if (entity.kind != Entity::Kind::ModuleVariable && entity.kind != Entity::Kind::Function)
    return fail(line, quoted(name) + " is not a variable or function that was declared before");
  if (!offsetTerms(address.addend))
    return false;
  if (address.generic && (!expect(')', "after generic(") || !offsetTerms(address.addend)))
    return false;
  address.size = bytesOf(variable.type);
  if (address.size != 8 || isFloat(variable.type))
    return fail(line, "an address needs an element of 64 bits");
  address.variable = entity.index;
  address.function = entity.kind == Entity::Kind::Function;
  address.offset = element * 8;
  if (!storeConstant(variable, element, {}, line))
    return false;
  variable.addresses.push_back(address);
  return true;
}

} // namespace kvq::ptxsim::reader
