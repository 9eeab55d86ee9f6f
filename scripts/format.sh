#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Formats the C and C++ sources in place; with --check it changes nothing and fails where a file would change. TableGen
# files and Python are not formatted by a tool.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(find dialect passes codegen runtime tools python examples bench tests -type f \
  \( -name '*.h' -o -name '*.c' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -not -path '*/golden/*' | sort)
[[ ${#files[@]} -gt 0 ]] || { echo "format: found no C or C++ source" >&2 && exit 1; }
if [[ ${1:-} == --check ]]; then
  clang-format-22 --dry-run -Werror "${files[@]}"
  printf '%d files are formatted\n' "${#files[@]}"
else
  clang-format-22 -i "${files[@]}"
  printf 'formatted %d files\n' "${#files[@]}"
fi
