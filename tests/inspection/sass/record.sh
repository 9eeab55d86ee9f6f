#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Records the machine code of the kernels here. ptxas and nvdisasm come from PATH.
set -euo pipefail
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for kernel in *.ptx; do
  name=${kernel%.ptx}
  for target in sm_80 sm_90 sm_120; do
    ptxas -lineinfo -arch="$target" -o "$scratch/$name" "$kernel"
    nvdisasm -c -gp "$scratch/$name" >"$name.$target.sass"
  done
done
