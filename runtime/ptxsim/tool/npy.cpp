// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/tool/npy.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace kvq::ptxsim {

namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr size_t kMaxDimensions = 32;
constexpr int64_t kMaxBytes = int64_t(1) << 40;

Status invalid(const std::string &what) { return {Code::InvalidArgument, what}; }

// The header is a Python literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }. Only what NumPy writes
// of that language is read.
class Header {
public:
  explicit Header(std::string_view text) : text_(text) {}
  Status parse();
  std::string descr;
  bool fortran = false;
  std::vector<int64_t> shape;

private:
  void skip() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n' || text_[0] == '\t'))
      text_.remove_prefix(1);
  }
  bool take(std::string_view token) {
    skip();
    if (!text_.starts_with(token))
      return false;
    text_.remove_prefix(token.size());
    return true;
  }
  bool string(std::string &out);
  bool number(int64_t &out);
  bool tuple();
  bool entry();

  std::string_view text_;
  bool descr_ = false, fortran_ = false, shape_ = false;
};

bool Header::string(std::string &out) {
  skip();
  if (text_.empty() || (text_[0] != '\'' && text_[0] != '"'))
    return false;
  const size_t end = text_.find(text_[0], 1);
  if (end == std::string_view::npos)
    return false;
  out = text_.substr(1, end - 1);
  text_.remove_prefix(end + 1);
  return true;
}

bool Header::number(int64_t &out) {
  skip();
  size_t digits = 0;
  for (out = 0; digits < text_.size() && text_[digits] >= '0' && text_[digits] <= '9'; ++digits)
    if (__builtin_mul_overflow(out, 10, &out) || __builtin_add_overflow(out, text_[digits] - '0', &out))
      return false;
  text_.remove_prefix(digits);
  return digits > 0;
}

bool Header::tuple() {
  if (!take("("))
    return false;
  while (!take(")")) {
    int64_t size = 0;
    if (shape.size() == kMaxDimensions || !number(size))
      return false;
    shape.push_back(size);
    if (!take(",")) {
      if (!take(")"))
        return false;
      break;
    }
  }
  return true;
}

bool Header::entry() {
  std::string key;
  if (!string(key) || !take(":"))
    return false;
  if (key == "descr" && !descr_)
    return descr_ = string(descr);
  if (key == "shape" && !shape_)
    return shape_ = tuple();
  if (key == "fortran_order" && !fortran_) {
    fortran = take("True");
    return fortran_ = fortran || take("False");
  }
  return false;
}

Status Header::parse() {
  bool good = take("{");
  while (good && !take("}")) {
    good = entry();
    if (good && !take(",")) {
      good = take("}");
      break;
    }
  }
  skip();
  if (!good || !text_.empty() || !descr_ || !fortran_ || !shape_)
    return invalid("the header is not one that NumPy writes for a plain array");
  return Status::ok();
}

Result<const ScalarType *> typeOf(const std::string &descr) {
  const ScalarType *type = nullptr;
  if (descr.size() == 3 && (descr[0] == '<' || descr[0] == '|' || descr[0] == '=') && descr[2] >= '1' &&
      descr[2] <= '8')
    type = numpyType(descr[1], descr[2] - '0');
  if (!type || (descr[0] == '|' && type->bytes != 1))
    return invalid("the element type '" + descr + "' is not supported: convert it to a little-endian one of " +
                   numpyNames());
  return type;
}

using File = std::unique_ptr<FILE, int (*)(FILE *)>;

} // namespace

Result<int64_t> arrayBytes(const ScalarType &type, const std::vector<int64_t> &shape) {
  int64_t bytes = type.bytes;
  bool empty = false;
  for (int64_t size : shape) {
    empty |= size == 0;
    if (size < 0 || (size && __builtin_mul_overflow(bytes, size, &bytes)) || bytes > kMaxBytes)
      return invalid("the shape has more than 2^40 bytes");
  }
  return empty ? 0 : bytes;
}

Result<Array> parseNpy(std::span<const uint8_t> file) {
  const std::string_view text(reinterpret_cast<const char *>(file.data()), file.size());
  if (!text.starts_with(kMagic) || file.size() < 10)
    return invalid("it is not a .npy file");
  const int version = file[6];
  if ((version != 1 && version != 2) || file[7] != 0)
    return invalid("it is a .npy file of version " + std::to_string(version) + "." + std::to_string(file[7]) +
                   ": versions 1.0 and 2.0 are read");
  const size_t begin = version == 1 ? 10 : 12;
  if (file.size() < begin)
    return invalid("its header is cut off");
  size_t length = 0;
  for (size_t i = 8; i < begin; ++i)
    length |= size_t(file[i]) << 8 * (i - 8);
  if (length > file.size() - begin)
    return invalid("its header is cut off");
  Header header(text.substr(begin, length));
  KVQ_RETURN_IF_ERROR(header.parse());
  auto type = typeOf(header.descr);
  if (!type.isOk())
    return type.status();
  if (header.fortran && header.shape.size() > 1)
    return invalid("it is in Fortran order: save numpy.ascontiguousarray(a)");
  auto bytes = arrayBytes(*type.value(), header.shape);
  if (!bytes.isOk())
    return bytes.status();
  const auto data = file.subspan(begin + length);
  if (static_cast<int64_t>(data.size()) != bytes.value())
    return invalid("it has " + std::to_string(data.size()) + " bytes of data but its shape needs " +
                   std::to_string(bytes.value()));
  return Array{type.value(), std::move(header.shape), {data.begin(), data.end()}};
}

std::string npyHeader(const ScalarType &type, const std::vector<int64_t> &shape) {
  std::string dict = "{'descr': '" + std::string(type.bytes == 1 ? "|" : "<") + type.kind + std::to_string(type.bytes) +
                     "', 'fortran_order': False, 'shape': (";
  for (int64_t size : shape)
    dict += std::to_string(size) + (shape.size() == 1 ? "," : &size == &shape.back() ? "" : ", ");
  dict += "), }";
  constexpr size_t kFixed = 10; // magic, version, length
  while ((kFixed + dict.size() + 1) % 64 != 0)
    dict += ' ';
  dict += '\n';
  std::string head(kMagic);
  head += {'\x01', '\x00', static_cast<char>(dict.size() & 0xff), static_cast<char>(dict.size() >> 8)};
  return head + dict;
}

Result<std::vector<uint8_t>> readFile(const std::string &path) {
  const File file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file)
    return Status(Code::Permission, "cannot read " + path + ": " + std::strerror(errno));
  std::vector<uint8_t> bytes;
  uint8_t part[1 << 16];
  while (const size_t got = std::fread(part, 1, sizeof(part), file.get()))
    bytes.insert(bytes.end(), part, part + got);
  if (std::ferror(file.get()))
    return Status(Code::Permission, "cannot read " + path + ": " + std::strerror(errno));
  return bytes;
}

Status writeFile(const std::string &path, std::string_view head, std::span<const uint8_t> data) {
  File file(std::fopen(path.c_str(), "wb"), std::fclose);
  bool good = file && std::fwrite(head.data(), 1, head.size(), file.get()) == head.size();
  good = good && std::fwrite(data.data(), 1, data.size(), file.get()) == data.size();
  good = good && std::fclose(file.release()) == 0;
  return good ? Status::ok() : Status(Code::Permission, "cannot write " + path + ": " + std::strerror(errno));
}

Result<Array> readNpy(const std::string &path) {
  auto file = readFile(path);
  if (!file.isOk())
    return file.status();
  auto array = parseNpy(file.value());
  return array.isOk() ? array : Result<Array>(Status(array.status().code(), path + ": " + array.status().message()));
}

Status writeNpy(const std::string &path, const Array &array) {
  return writeFile(path, npyHeader(*array.type, array.shape), array.data);
}

} // namespace kvq::ptxsim
