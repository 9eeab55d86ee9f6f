// SPDX-License-Identifier: Apache-2.0
//
// kvq_accuracy_*: the accuracy classes, and what an enumerator of the caller's means.
#include "runtime/capi/handles.h"

using namespace kvq;
using namespace kvq::capi;

// KVQ_ACCURACY_DEFAULT is 0 and the classes follow in the order of Accuracy.
static_assert(KVQ_ACCURACY_FULL == static_cast<int>(Accuracy::Full) + 1 &&
              KVQ_ACCURACY_EXACT == static_cast<int>(Accuracy::Exact) + 1 &&
              KVQ_ACCURACY_NORMAL == static_cast<int>(Accuracy::Normal) + 1 &&
              KVQ_ACCURACY_FAST == static_cast<int>(Accuracy::Fast) + 1 && std::size(kAllAccuracies) == 4);

namespace kvq::capi {

static std::string classNames(const char *separator) {
  std::string names;
  for (Accuracy accuracy : kAllAccuracies)
    names += (names.empty() ? "" : separator) + std::string(toText(accuracy));
  return names;
}

Result<Accuracy> toAccuracy(const std::string &name, const kvq_accuracy &accuracy) {
  const int number = enumValue(accuracy);
  if (number == KVQ_ACCURACY_DEFAULT)
    return kDefaultAccuracy;
  if (number < KVQ_ACCURACY_FULL || number > KVQ_ACCURACY_FAST)
    return Status(Code::InvalidArgument, name + " has the unknown accuracy " + std::to_string(number) +
                                             ": use KVQ_ACCURACY_DEFAULT or the constant of one of " +
                                             classNames(", "));
  return static_cast<Accuracy>(number - 1);
}

kvq_accuracy fromAccuracy(Accuracy accuracy) { return static_cast<kvq_accuracy>(static_cast<int>(accuracy) + 1); }

} // namespace kvq::capi

extern "C" {

const char *kvq_accuracy_classes(void) {
  static const std::string names = classNames(" ");
  return names.c_str();
}

const char *kvq_accuracy_name(kvq_accuracy accuracy) {
  const Result<Accuracy> known = toAccuracy("accuracy", accuracy);
  return known.isOk() ? toText(known.value()).data() : nullptr; // a literal, which ends in a NUL
}

} // extern "C"
