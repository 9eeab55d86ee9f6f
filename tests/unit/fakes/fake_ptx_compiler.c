/* SPDX-License-Identifier: Apache-2.0
 *
 * A compiler plug-in for tests of accelerators: every request compiles to one PTX kernel, in which program i of row j
 * writes value + 1000 j + i to out[j * programs + i]. It appends one line to the file $FAKE_COMPILER_LOG per compile,
 * takes 30 ms for it, refuses requests with 3 bits and every level that is none of an accelerator, and makes what no
 * device takes of requests with a page of 128 tokens.
 */
#include "fake_log.h"
#include "fake_schedules.h"

#include <kvq/compiler_plugin.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int32_t kvq_compiler_plugin_version(void) { return KVQ_COMPILER_PLUGIN_VERSION; }
EXPORT const char *kvq_compiler_hash(void) { return "fake-ptx-1"; }
EXPORT const char *kvq_compiler_host_levels(void) { return "none"; }
EXPORT const char *kvq_compiler_targets(void) { return "none nvptx:sm_80"; }

static const char kText[] = ".version 7.0\n"
                            ".target sm_80\n"
                            ".address_size 64\n"
                            ".visible .entry kvq_entry(.param .u64 out, .param .u64 value, .param .u64 programs)\n"
                            ".reqntid 128, 1, 1\n"
                            "{\n"
                            "  .reg .pred %p<3>; .reg .b32 %r<8>; .reg .b64 %rd<12>;\n"
                            "  mov.u32 %r1, %tid.x;\n"
                            "  shr.u32 %r2, %r1, 5;\n"
                            "  and.b32 %r3, %r1, 31;\n"
                            "  mov.u32 %r4, %ctaid.x;\n"
                            "  mad.lo.u32 %r5, %r4, 4, %r2;\n"
                            "  cvt.u64.u32 %rd1, %r5;\n"
                            "  ld.param.u64 %rd2, [programs];\n"
                            "  setp.ge.u64 %p1, %rd1, %rd2;\n"
                            "  @%p1 ret;\n"
                            "  setp.ne.u32 %p2, %r3, 0;\n"
                            "  @%p2 ret;\n"
                            "  mov.u32 %r6, %ctaid.y;\n"
                            "  cvt.u64.u32 %rd3, %r6;\n"
                            "  ld.param.u64 %rd4, [out];\n"
                            "  ld.param.u64 %rd5, [value];\n"
                            "  mad.lo.u64 %rd6, %rd3, %rd2, %rd1;\n"
                            "  mad.lo.u64 %rd7, %rd6, 4, %rd4;\n"
                            "  mad.lo.u64 %rd8, %rd3, 1000, %rd5;\n"
                            "  add.u64 %rd9, %rd8, %rd1;\n"
                            "  cvt.u32.u64 %r7, %rd9;\n"
                            "  st.global.u32 [%rd7], %r7;\n"
                            "  ret;\n"
                            "}\n";

EXPORT kvq_compile_output *kvq_compiler_compile(const kvq_compile_input *input) {
  kvq_compile_output *output = calloc(1, sizeof(*output));
  log_compile("FAKE_COMPILER_LOG");
  usleep(30000);
  output->entry = "kvq_entry";
  output->signature = "ptr<i32> i64";
  output->message = "";
  output->compile_ms = 30.0;
  if (strncmp(input->level, "nvptx:sm_", 9) != 0)
    output->message = "this compiler makes PTX alone";
  else if (!input->request)
    output->message = "this compiler takes requests alone";
  else if (!fake_has_schedule(input))
    output->message = kFakeRefusal;
  else if (strstr(input->request, "k3"))
    output->message = "there is no kernel for 3 bits on an accelerator: use 2, 4 or 8";
  else {
    output->object = strstr(input->request, "p128") ? ".version 7.0\n.target sm_80\n.nonsense;\n" : kText;
    output->object_bytes = strlen(output->object);
  }
  return output;
}

EXPORT void kvq_compiler_free(kvq_compile_output *output) { free(output); }
