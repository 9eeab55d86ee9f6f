// SPDX-License-Identifier: Apache-2.0
//
// Compiles of a fake compiler, counted by the lines of a file.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

// One line more in the file that the environment variable names, if it is set.
static void log_compile(const char *variable) {
  const char *path = getenv(variable);
  int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
  if (fd < 0)
    return;
  if (write(fd, "x\n", 2) != 2)
    abort();
  close(fd);
}
