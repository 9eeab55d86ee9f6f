// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/tool/buffers.h"

#include "runtime/ptxsim/tool/npy.h"

#include <cstring>

namespace kvq::ptxsim {

namespace {

using Kind = ParameterSpec::Kind;

Status invalid(size_t index, const ParameterSpec &spec, const std::string &what) {
  return {Code::InvalidArgument, "--arg " + std::to_string(index) + " '" + spec.text + "': " + what};
}

bool isBuffer(Kind kind) { return kind != Kind::Scalar && kind != Kind::Bytes; }

// What a parameter begins with: an array's bytes, a struct's bytes, or the value itself.
struct Content {
  Array array;       // its data is empty for Out
  int64_t bytes = 0; // of a buffer
};

Status loadBuffer(const ParameterSpec &spec, Content &content) {
  if (!spec.file.empty()) {
    auto array = readNpy(spec.file);
    if (!array.isOk())
      return array.status();
    content.array = std::move(array.value());
    content.bytes = static_cast<int64_t>(content.array.data.size());
    return Status::ok();
  }
  content.array.type = spec.type;
  content.array.shape = spec.shape;
  auto bytes = arrayBytes(*spec.type, spec.shape);
  if (!bytes.isOk())
    return bytes.status();
  content.bytes = bytes.value();
  return Status::ok();
}

Status load(size_t index, const ParameterSpec &spec, const KernelParam &param, Content &content) {
  if (spec.kind == Kind::Bytes) {
    auto file = readFile(spec.file);
    if (!file.isOk())
      return file.status();
    content.array.data = std::move(file.value());
  } else if (spec.kind == Kind::Scalar) {
    content.array.data = spec.value;
  } else if (Status status = loadBuffer(spec, content); !status.isOk()) {
    return invalid(index, spec, status.message());
  }
  const int64_t size = isBuffer(spec.kind) ? 8 : static_cast<int64_t>(content.array.data.size());
  if (size != param.size)
    return invalid(index, spec,
                   "it has " + std::to_string(size) + " bytes but parameter " + param.name + " has " +
                       std::to_string(param.size));
  return Status::ok();
}

std::string bufferName(size_t index, const ParameterSpec &spec) {
  const std::string &path = spec.file.empty() ? spec.output : spec.file;
  std::string name = "arg " + std::to_string(index);
  if (!path.empty())
    name += " (" + path.substr(path.rfind('/') + 1) + ")";
  return name;
}

Result<uint64_t> allocate(GlobalMemory &memory, size_t index, const ParameterSpec &spec, const Content &content) {
  if (content.bytes == 0) // an empty array has no address, as in the frameworks
    return uint64_t(0);
  auto address = memory.allocate(content.bytes, bufferName(index, spec));
  if (!address.isOk())
    return invalid(index, spec, address.status().message());
  if (spec.kind == Kind::Fill) {
    std::vector<uint8_t> data(content.bytes);
    for (size_t i = 0; i < data.size(); i += spec.value.size())
      std::memcpy(data.data() + i, spec.value.data(), spec.value.size());
    KVQ_RETURN_IF_ERROR(memory.write(address.value(), data));
  } else if (spec.kind != Kind::Out) {
    KVQ_RETURN_IF_ERROR(memory.write(address.value(), content.array.data));
  }
  if (spec.kind == Kind::In)
    KVQ_RETURN_IF_ERROR(memory.setReadOnly(address.value(), true));
  return address;
}

} // namespace

Result<Buffers> Buffers::make(GlobalMemory &memory, const KernelAttributes &kernel,
                              const std::vector<ParameterSpec> &specs) {
  if (specs.size() != kernel.params.size())
    return Status(Code::InvalidArgument, "kernel " + kernel.name + " has " + std::to_string(kernel.params.size()) +
                                             " parameters but " + std::to_string(specs.size()) + " --arg are given");
  std::vector<Content> contents(specs.size());
  for (size_t i = 0; i < specs.size(); ++i)
    KVQ_RETURN_IF_ERROR(load(i, specs[i], kernel.params[i], contents[i]));
  Buffers buffers;
  buffers.params_.resize(kernel.paramBytes);
  for (size_t i = 0; i < specs.size(); ++i) {
    std::vector<uint8_t> value = contents[i].array.data;
    if (isBuffer(specs[i].kind)) {
      auto address = allocate(memory, i, specs[i], contents[i]);
      if (!address.isOk())
        return address.status();
      value.resize(sizeof(uint64_t));
      std::memcpy(value.data(), &address.value(), sizeof(uint64_t));
      if (!specs[i].output.empty())
        buffers.outputs_.push_back(
            {address.value(), contents[i].array.type, contents[i].array.shape, contents[i].bytes, specs[i].output});
    }
    std::memcpy(buffers.params_.data() + kernel.params[i].offset, value.data(), value.size());
  }
  return buffers;
}

Status Buffers::writeOutputs(const GlobalMemory &memory) const {
  for (const Output &output : outputs_) {
    Array array{output.type, output.shape, std::vector<uint8_t>(output.bytes)};
    if (output.bytes)
      KVQ_RETURN_IF_ERROR(memory.read(output.address, array.data));
    KVQ_RETURN_IF_ERROR(writeNpy(output.path, array));
  }
  return Status::ok();
}

} // namespace kvq::ptxsim
