/* SPDX-License-Identifier: Apache-2.0
 *
 * NVRTC for tests without it. A program "compiles" to its own source, which stands for the cubin; as PTX it is its asm
 * text behind NVRTC's mark. The line of the asm text with the word "mistake" is an error of the assembler, the word
 * "greedy" one of register allocation, and the word "spoilt" in CUDA C++ one of its front end. The number of
 * compilations is appended to the file $FAKE_NVRTC_LOG.
 */
#include "fake_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct _nvrtcProgram {
  char *source, *output, log[512];
} program;

/* Lines before the asm text in the PTX that the fake makes. */
static const char head[] = "//\n.version 9.0\n.target sm_80\n\t// begin inline asm\n";

EXPORT int nvrtcVersion(int *major, int *minor) {
  *major = FAKE_MAJOR;
  *minor = FAKE_MINOR;
  return 0;
}

EXPORT const char *nvrtcGetErrorString(int code) { return code == 5 ? "NVRTC_ERROR_INVALID_OPTION" : "NVRTC_ERROR"; }

EXPORT int nvrtcGetNumSupportedArchs(int *count) {
  *count = 3;
  return 0;
}

EXPORT int nvrtcGetSupportedArchs(int *archs) {
  archs[0] = 80;
  archs[1] = 86;
  archs[2] = 90;
  return 0;
}

EXPORT int nvrtcCreateProgram(program **out, const char *source, const char *name, int count,
                              const char *const *headers, const char *const *names) {
  (void)name, (void)count, (void)headers, (void)names;
  *out = calloc(1, sizeof(program));
  (*out)->source = strdup(source);
  return 0;
}

EXPORT int nvrtcDestroyProgram(program **p) {
  free((*p)->source);
  free((*p)->output);
  free(*p);
  *p = NULL;
  return 0;
}

/* The asm text: what stands in quotes, without the \n of each line. */
static char *asm_text(const char *source) {
  char *text = calloc(1, strlen(source) + 1), *end = text;
  const char *at = strstr(source, "asm volatile(");
  for (at = at ? strchr(at, '\n') : NULL; at && at[1] == '"'; at = strchr(at + 1, '\n')) {
    const char *stop = strstr(at, "\\n\"\n");
    memcpy(end, at + 2, (size_t)(stop - at - 2));
    end += stop - at - 2;
    *end++ = '\n';
  }
  return text;
}

static int line_of(const char *text, const char *word) {
  const char *found = strstr(text, word);
  int line = 1;
  for (; found && text < found; ++text)
    line += *text == '\n';
  return found ? line : 0;
}

EXPORT int nvrtcCompileProgram(program *p, int count, const char *const *options) {
  const int to_ptx = count > 0 && strstr(options[0], "compute_") != NULL;
  char *text = asm_text(p->source);
  int before = 0;
  for (const char *c = head; *c; ++c)
    before += *c == '\n';
  if (to_ptx) {
    p->output = malloc(sizeof(head) + strlen(text) + 1);
    sprintf(p->output, "%s%s", head, text);
    free(text);
    if (!strstr(p->source, "spoilt"))
      return 0;
    sprintf(p->log,
            "score.cu(3): warning #177-D: nothing\nscore.cu(7): error: identifier \"spoilt\" is undefined\n1 error\n");
    return 6;
  }
  log_compile("FAKE_NVRTC_LOG");
  p->output = strdup(p->source);
  const int mistake = line_of(text, "mistake"), greedy = line_of(text, "greedy");
  free(text);
  if (mistake)
    sprintf(p->log,
            "ptxas application ptx input, line %d; error   : Unknown modifier '.x'\n"
            "ptxas application ptx input, line %d; error   : Not a name of any known instruction: 'mistake'\n"
            "ptxas application ptx input, line %d; error   : Another\n"
            "ptxas fatal   : Ptx assembly aborted due to errors\n",
            before + mistake, before + mistake, before + mistake + 1);
  else if (greedy)
    sprintf(p->log, "ptxas fatal   : (C7600) Register allocation failed with register count of '16'\n");
  else
    sprintf(p->log, "ptxas info    : Function properties for k\n"
                    "ptxas         .     0 bytes stack frame, 8 bytes spill stores, 16 bytes spill loads\n");
  return mistake || greedy ? 6 : 0;
}

static int give_size(const char *text, size_t *size) {
  *size = text ? strlen(text) + 1 : 0;
  return 0;
}

static int give(const char *text, char *out) {
  strcpy(out, text);
  return 0;
}

EXPORT int nvrtcGetProgramLogSize(program *p, size_t *size) { return give_size(p->log, size); }
EXPORT int nvrtcGetProgramLog(program *p, char *out) { return give(p->log, out); }
EXPORT int nvrtcGetPTXSize(program *p, size_t *size) { return give_size(p->output, size); }
EXPORT int nvrtcGetPTX(program *p, char *out) { return give(p->output, out); }
#ifndef FAKE_CUT
EXPORT int nvrtcGetCUBINSize(program *p, size_t *size) { return give_size(p->output, size); }
EXPORT int nvrtcGetCUBIN(program *p, char *out) { return give(p->output, out); }
#endif
