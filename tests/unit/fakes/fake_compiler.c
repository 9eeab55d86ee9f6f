/* SPDX-License-Identifier: Apache-2.0
 *
 * A compiler plug-in for tests of the store: every text compiles to the object of fake_kernel.c. It appends one line to
 * the file $FAKE_COMPILER_LOG per compile, takes 30 ms for it, and refuses texts that contain "mistake". A request has
 * the two schedules of fake_schedules.h.
 */
#include "fake_log.h"
#include "fake_schedules.h"

#include <kvq/compiler_plugin.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int32_t kvq_compiler_plugin_version(void) { return FAKE_VERSION; }
EXPORT const char *kvq_compiler_hash(void) { return "fake-1"; }
EXPORT const char *kvq_compiler_host_levels(void) { return "low high"; }
EXPORT const char *kvq_compiler_targets(void) { return "low high other"; }

EXPORT kvq_compile_output *kvq_compiler_compile(const kvq_compile_input *input) {
  const char *text = input->request ? input->request : input->source;
  kvq_compile_output *output = calloc(1, sizeof(*output));
  log_compile("FAKE_COMPILER_LOG");
  usleep(30000);
  output->entry = "fake_kernel";
  output->signature = "ptr<i32> i64";
  output->message = "";
  output->compile_ms = 30.0;
  if (strstr(text, "mistake") || !fake_has_schedule(input)) {
    output->message = strstr(text, "mistake") ? "2:5: a mistake was made; repeat: kvqc --bundle x" : kFakeRefusal;
    return output;
  }
  FILE *file = fopen(FAKE_OBJECT, "rb");
  char *object = malloc(1 << 20);
  output->object_bytes = fread(object, 1, 1 << 20, file);
  output->object = object;
  fclose(file);
  return output;
}

EXPORT void kvq_compiler_free(kvq_compile_output *output) {
  if (output->object != kFakeSchedules)
    free((void *)output->object);
  free(output);
}
