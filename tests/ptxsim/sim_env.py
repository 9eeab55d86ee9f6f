# SPDX-License-Identifier: Apache-2.0
"""Where the simulator's programs are, and small PTX texts that several tests run."""
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("KVQ_BUILD", ROOT / "build" / "release"))
PTX_RUN = os.environ.get("KVQ_PTX_RUN", str(BUILD / "runtime/ptxsim/ptx-run"))
DRIVER = BUILD / "runtime/ptxsim/driver"

HEAD = ".version 7.8\n.target sm_80\n.address_size 64\n"
# to[i] = from[i] + value for i < count, one thread each.
ADD = HEAD + """
.visible .entry add(.param .u64 from, .param .u64 to, .param .f32 value, .param .u32 count)
{
  .reg .pred %p<2>; .reg .b32 %r<6>; .reg .f32 %f<4>; .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [from];
  ld.param.u64 %rd2, [to];
  ld.param.f32 %f1, [value];
  ld.param.u32 %r1, [count];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 bra DONE;
  cvta.to.global.u64 %rd3, %rd1;
  cvta.to.global.u64 %rd4, %rd2;
  mul.wide.u32 %rd5, %r5, 4;
  add.s64 %rd6, %rd3, %rd5;
  add.s64 %rd7, %rd4, %rd5;
  ld.global.f32 %f2, [%rd6];
  add.f32 %f3, %f2, %f1;
  st.global.f32 [%rd7], %f3;
DONE:
  ret;
}
"""
ADD_LOAD_LINE = 1 + ADD[:ADD.index("ld.global.f32")].count("\n")


def ptx_run(*arguments, **options):
    return subprocess.run([PTX_RUN, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)
