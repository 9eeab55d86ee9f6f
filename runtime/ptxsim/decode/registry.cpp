// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/decode/registry.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string_view>

namespace kvq::ptxsim {

namespace {

constexpr std::pair<const char *, Type> kTypeNames[] = {
    {"pred", Type::Pred}, {"b8", Type::B8},         {"b16", Type::B16}, {"b32", Type::B32}, {"b64", Type::B64},
    {"u8", Type::U8},     {"u16", Type::U16},       {"u32", Type::U32}, {"u64", Type::U64}, {"s8", Type::S8},
    {"s16", Type::S16},   {"s32", Type::S32},       {"s64", Type::S64}, {"f16", Type::F16}, {"f16x2", Type::F16x2},
    {"bf16", Type::BF16}, {"bf16x2", Type::BF16x2}, {"f32", Type::F32}, {"f64", Type::F64}};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    if (end != 0 || separator != ' ')
      parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos)
      break;
    text.remove_prefix(end + 1);
  }
  std::erase_if(parts, [&](std::string_view part) { return separator == ' ' && part.empty(); });
  return parts;
}

// The types that begin like f16x2 would be read as vectors of f16 otherwise: the longest name wins.
Type takeType(std::string_view &text) {
  Type found = Type::None;
  size_t length = 0;
  for (const auto &[name, type] : kTypeNames)
    if (text.starts_with(name) && std::strlen(name) > length) {
      found = type;
      length = std::strlen(name);
    }
  text.remove_prefix(length);
  return found;
}

OperandSpec parseSpec(std::string_view text) {
  OperandSpec spec;
  if (text.ends_with('?')) {
    spec.optional = true;
    text.remove_suffix(1);
  }
  if (text == "addr" || text == "imm" || text == "sym") {
    spec.kind = text == "addr" ? OperandKind::Address : text == "imm" ? OperandKind::Immediate : OperandKind::Symbol;
    return spec;
  }
  spec.type = takeType(text);
  if (text.starts_with('x')) {
    spec.vector = text[1] - '0';
    text.remove_prefix(2);
  }
  if (text.starts_with('*')) {
    spec.wide = true;
    text.remove_prefix(1);
  }
  if (text.starts_with('|')) {
    text.remove_prefix(1);
    spec.second = takeType(text);
  }
  assert(spec.type != Type::None && text.empty() && "a mistake in the operands of a form");
  return spec;
}

struct Partial {
  std::string name;
  std::vector<int> choice;
};

// Expands the first group of a pattern and then the rest.
void expand(std::string_view pattern, Partial partial, std::vector<Partial> &out) {
  const size_t open = pattern.find_first_of("[{");
  partial.name += pattern.substr(0, open);
  if (open == std::string_view::npos) {
    out.push_back(std::move(partial));
    return;
  }
  const bool optional = pattern[open] == '[';
  const size_t close = pattern.find(optional ? ']' : '}', open);
  assert(close != std::string_view::npos && "a group of a pattern is not closed");
  const std::string_view rest = pattern.substr(close + 1);
  if (optional) {
    Partial without = partial;
    without.choice.push_back(-1);
    expand(rest, std::move(without), out);
  }
  int index = 0;
  for (std::string_view alternative : split(pattern.substr(open + 1, close - open - 1), '|')) {
    Partial with = partial;
    with.name += alternative;
    with.choice.push_back(index++);
    expand(rest, std::move(with), out);
  }
}

void parseOperands(const char *text, Form &form) {
  const std::string_view all = text;
  const size_t equals = all.find('=');
  assert(equals != std::string_view::npos && "operands are written results = sources");
  for (std::string_view part : split(all.substr(0, equals), ' '))
    form.results.push_back(parseSpec(part));
  for (std::string_view part : split(all.substr(equals + 1), ' '))
    form.sources.push_back(parseSpec(part));
}

} // namespace

bool Form::has(const char *modifier) const {
  for (std::string_view part : split(name, '.'))
    if (part == modifier)
      return true;
  return false;
}

Table::Added Table::add(const char *pattern, const char *operands, OpClass opClass, Handler handler) {
  return add(pattern, operands, opClass, Choose([handler](const Form &) { return handler; }));
}

Table::Added Table::add(const char *pattern, const char *operands, OpClass opClass, const Choose &choose) {
  std::vector<Partial> expanded;
  expand(pattern, {}, expanded);
  Added added;
  for (Partial &partial : expanded) {
    auto form = std::make_unique<Form>();
    form->name = std::move(partial.name);
    form->choice = std::move(partial.choice);
    form->opClass = opClass;
    parseOperands(operands, *form);
    form->handler = choose(*form);
    added.forms.push_back(form.get());
    std::vector<std::unique_ptr<Form>> &same = forms_[form->name];
    same.push_back(std::move(form));
  }
  return added;
}

Table::Added &Table::Added::flow(Flow flow, int member) {
  for (Form *form : forms) {
    form->flow = flow;
    form->member = member;
  }
  return *this;
}

Table::Added &Table::Added::space(Space space) {
  for (Form *form : forms)
    form->space = space;
  return *this;
}

Table::Added &Table::Added::tag(int tag) {
  for (Form *form : forms)
    form->tag = tag;
  return *this;
}

Table::Added &Table::Added::propagates() {
  for (Form *form : forms)
    form->propagates = true;
  return *this;
}

Table::Added &Table::Added::ordersBlocks() {
  for (Form *form : forms)
    form->ordersBlocks = true;
  return *this;
}

const std::vector<std::unique_ptr<Form>> &Table::find(const std::string &name) const {
  static const std::vector<std::unique_ptr<Form>> none;
  const auto found = forms_.find(name);
  return found == forms_.end() ? none : found->second;
}

std::vector<const Form *> Table::formsOf(const std::string &opcode) const {
  std::vector<const Form *> all;
  for (const auto &[name, same] : forms_)
    if (name == opcode || name.starts_with(opcode + "."))
      for (const auto &form : same)
        all.push_back(form.get());
  std::sort(all.begin(), all.end(), [](const Form *a, const Form *b) { return a->name < b->name; });
  return all;
}

const Table &instructions() {
  static const Table table = [] {
    Table made;
    for (void (*add)(Table &) :
         {addInteger, addLogic, addFloat, addApproximate, addHalf, addConvert, addCompare, addMove, addMemory,
          addAtomic, addAsyncCopy, addMatrixLoad, addMatrix, addWarp, addControl})
      add(made);
    return made;
  }();
  return table;
}

} // namespace kvq::ptxsim
