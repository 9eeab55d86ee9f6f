// SPDX-License-Identifier: Apache-2.0
//
// kvq._native.Context: a device, its threads and its kernels.
#include "python/native/native.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <sstream>
#include <utility>
#include <vector>

namespace kvq::python {

using Text = std::optional<std::string>;

static const char *pointer(const Text &text) { return text ? text->c_str() : nullptr; }

static void create(Context *self, const std::string &device, const Text &level, int threads, const Text &store,
                   const Text &compiler, bool frozen) {
  Context context;
  kvq_context_options options = {};
  options.struct_size = sizeof options;
  options.device = device.c_str();
  options.level = pointer(level);
  options.threads = threads;
  options.store_dir = pointer(store);
  options.compiler = pointer(compiler);
  options.frozen = frozen;
  kvq_error *error;
  {
    nb::gil_scoped_release release;
    error = kvq_context_create(&options, &context.state->handle);
  }
  check(error);
  new (self) Context(std::move(context));
}

static nb::list levels(const Context &self) {
  nb::list result;
  std::istringstream words(kvq_context_levels(self.state->handle));
  for (std::string word; words >> word;)
    result.append(word);
  return result;
}

static nb::list kernels(Context &self) {
  nb::list result;
  KernelVisitor visitor(result.attr("append"));
  {
    nb::gil_scoped_release release;
    std::scoped_lock lock(self.state->mutex);
    kvq_context_kernels(self.state->handle, KernelVisitor::visit, &visitor);
  }
  visitor.rethrow();
  return result;
}

static void merge(Context &self, const Input &o, const Input &lse, const Output &out,
                  const std::optional<Output> &outLse) {
  kvq_tensor oView = tensorOf(o, "o"), lseView = tensorOf(lse, "lse"), outView = tensorOf(out, "out"), outLseView;
  if (outLse)
    outLseView = tensorOf(*outLse, "out_lse");
  nb::gil_scoped_release release;
  std::scoped_lock lock(self.state->mutex);
  check(kvq_merge(self.state->handle, &oView, &lseView, nullptr, &outView, outLse ? &outLseView : nullptr));
}

static std::pair<std::string, std::vector<std::string>> scheduleSpace(const Context &self, const std::string &request) {
  std::string text;
  {
    nb::gil_scoped_release release;
    size_t bytes = 0;
    check(kvq_schedule_space(self.state->handle, request.c_str(), 0, nullptr, &bytes));
    text.resize(bytes);
    check(kvq_schedule_space(self.state->handle, request.c_str(), bytes, text.data(), &bytes));
  }
  std::pair<std::string, std::vector<std::string>> space;
  std::istringstream lines(text.c_str());
  for (std::string schedule, mark; std::getline(lines, schedule);) {
    if (const size_t at = schedule.find(' '); at != schedule.npos) {
      schedule.resize(at);
      space.first = schedule;
    }
    space.second.push_back(schedule);
  }
  return space;
}

static void setSchedule(const Context &self, const std::string &request, const Text &schedule,
                        const std::optional<ScoreFunction> &score) {
  const kvq_score_function view = score ? score->view() : kvq_score_function{};
  nb::gil_scoped_release release;
  check(kvq_schedule_set(self.state->handle, request.c_str(), score ? &view : nullptr, pointer(schedule)));
}

// 64 bytes are enough (kvq.h).
static std::optional<std::string> splitPolicy(const Context &self, const std::string &request) {
  char text[64];
  {
    nb::gil_scoped_release release;
    check(kvq_split_policy_get(self.state->handle, request.c_str(), sizeof text, text));
  }
  return *text ? std::optional<std::string>(text) : std::nullopt;
}

static void setSplitPolicy(const Context &self, const std::string &request, const Text &policy) {
  nb::gil_scoped_release release;
  check(kvq_split_policy_set(self.state->handle, request.c_str(), pointer(policy)));
}

static void prepareSchedule(const Context &self, const std::string &target, const std::string &machine,
                            const std::string &request, const std::string &schedule, nb::object progress) {
  KernelVisitor visitor(std::move(progress));
  {
    nb::gil_scoped_release release;
    check(kvq_schedule_prepare(self.state->handle, target.c_str(), machine.c_str(), request.c_str(), nullptr,
                               schedule.c_str(), KernelVisitor::visit, &visitor));
  }
  visitor.rethrow();
}

nb::class_<Context> bindContext(nb::module_ &m) {
  using namespace nb::literals;
  nb::class_<Context> context(
      m, "Context",
      "A device (\"cpu\": generated kernels, \"ref\": the scalar reference, \"cuda\": an NVIDIA GPU, \"ptxsim\": a "
      "simulated one), its threads and its kernels.");
  context
      .def("__init__", create, "device"_a = "cpu", nb::kw_only(), "level"_a = nb::none(), "threads"_a = 0,
           "store_dir"_a = nb::none(), "compiler"_a = nb::none(), "frozen"_a = false)
      .def_prop_ro("levels", levels, "Levels that this host, or its GPU, can run, best last.")
      .def_prop_ro(
          "level", [](const Context &self) { return std::string(kvq_context_level(self.state->handle)); },
          "The level in use.")
      .def_prop_ro(
          "description", [](const Context &self) { return std::string(kvq_context_description(self.state->handle)); },
          "One line about the device: of a GPU its name, compute capability, memory and driver.")
      .def_prop_ro(
          "machine", [](const Context &self) { return std::string(kvq_context_machine(self.state->handle)); },
          "What times depend on, as canonical JSON: of a host kind, target (the level), name, cores, caches.")
      .def("schedule_space", scheduleSpace, "request"_a,
           "(default, schedules): the schedules that a kernel request can have here, and which is the default one.")
      .def("prepare_schedule", prepareSchedule, "target"_a, "machine"_a, "request"_a, "schedule"_a,
           "progress"_a.none() = nb::none(),
           "Compiles a kernel with a schedule for another machine into the store, and makes it that machine's choice.")
      .def(
          "set_schedule", setSchedule, "request"_a, "schedule"_a.none(), "score"_a = nb::none(),
          "Chooses the schedule of a kernel request, for kernels that are opened from now on; None forgets the choice.")
      .def_prop_ro(
          "default_split_policy",
          [](const Context &self) { return std::string(kvq_split_policy_default(self.state->handle)); },
          "How caches split keys over programs for which no policy is given or chosen.")
      .def("split_policy", splitPolicy, "request"_a,
           "The split policy that was chosen for caches of a request, \"split:..:heads2:..\" (kvq.h); None: none.")
      .def("set_split_policy", setSplitPolicy, "request"_a, "policy"_a.none(),
           "Chooses the split policy of caches that are made from now on; None forgets the choice.")
      .def("kernels", kernels, "One dict (name, source, key, compile_ms, object_bytes, schedule) for each kernel held.")
      .def("merge", merge, "o"_a.noconvert(), "lse"_a.noconvert(), "out"_a.noconvert(),
           "out_lse"_a.noconvert() = nb::none(), "Combines partial attention results over disjoint keys.");
  return context;
}

} // namespace kvq::python
