// SPDX-License-Identifier: Apache-2.0
//
// kvq._native.ScoreFunction: a user's change of attention's scores, as text.
#include "python/native/native.h"

#include <nanobind/stl/string.h>

namespace kvq::python {

kvq_score_function ScoreFunction::view() const {
  kvq_score_function view = {};
  view.struct_size = sizeof view;
  view.language = language == "cuda" ? KVQ_SCORE_CUDA : KVQ_SCORE_IR;
  view.text = text.c_str();
  view.name = name.c_str();
  return view;
}

static void create(ScoreFunction *self, std::string text, std::string language, std::string name) {
  if (language != "ir" && language != "cuda")
    throw Failure(KVQ_INVALID_ARGUMENT, "language is '" + language + "': use \"ir\" or \"cuda\"");
  new (self) ScoreFunction{std::move(text), std::move(language), std::move(name)};
}

void bindScore(nb::module_ &m) {
  using namespace nb::literals;
  nb::class_<ScoreFunction>(m, "ScoreFunction",
                            "A change of attention's scores that is compiled into the kernel. language \"ir\": an IR "
                            "module with one func.func "
                            "(%score: f32, %batch: index, %head: index, %query: index, %key: index) -> f32 of ops of "
                            "arith and math, for every "
                            "device. \"cuda\": extern \"C\" __device__ float kvq_score_mod(float score, int batch, int "
                            "head, int q, int k), for "
                            "devices cuda and ptxsim. `name` is what messages call it.")
      .def("__init__", create, "text"_a, "language"_a = "ir", "name"_a = "score")
      .def_ro("text", &ScoreFunction::text)
      .def_ro("language", &ScoreFunction::language)
      .def_ro("name", &ScoreFunction::name);
}

} // namespace kvq::python
