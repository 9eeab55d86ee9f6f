# SPDX-License-Identifier: Apache-2.0
"""Mutants that change nothing that a kernel may be held to, each with the argument. The keys are those of mutate.py,
for the PTX that the pinned nvcc makes; test_mutants.py fails where a key is stale or its mutant is caught after all."""

ALIGNED = "rows that are whole chunks may also be copied element by element"
QUARTER = "the lane is only divided by 4 here: its lowest bit does not matter"
NEXT_CHUNK = ("the element behind a chunk is the first of the next one, which a lane of the same warp writes with the "
              "same value, or the gap behind a row, which is not read")
PADDING = "the other factor is zero there, so this one may be any number; or the sum is not stored"
FIRST_LANE = ("only the first lane of the group is read. It and the lanes that it still needs add the lane above them "
              "in either way")
SAME_VALUE = "every lane has the scale and the minimum; the branch saves writing them more than once"
EMPTY_TILE = ("a tile more without tokens: everything in it is masked, so that no maximum, sum or output changes, and "
              "all threads of the block agree on whether there is one")
NO_WEIGHT_YET = "what is there before the first token is multiplied with 2 to the power of -inf, which is 0"

EQUIVALENT = {
    "gemm_f16": {
        "branch never taken: @%p17 bra $L__BB0_26; #1": ALIGNED,
        "bit of a mask cleared: and.b32 %r315, %r309, 31; #1": QUARTER,
        "compared constant: setp.ne.s32 %p21, %r346, 8; #1": NEXT_CHUNK,
        "moved constant: mov.u16 %rs13, 0; #1": PADDING,
    },
    "gemm_s8": {
        "branch never taken: @%p129 bra $L__BB0_26; #1": ALIGNED,
        "bit of a mask cleared: and.b32 %r613, %r607, 31; #1": QUARTER,
        "compared constant: setp.ne.s32 %p21, %r676, 16; #1": NEXT_CHUNK,
        "moved constant: mov.u16 %rs16, 0; #1": PADDING,
    },
    "matvec_async": {
        "kind of a shuffle: shfl.sync.down.b32 %r152|%p14, %r147, %r150, %r149, %r151; #1": FIRST_LANE,
        "kind of a shuffle: shfl.sync.down.b32 %r154|%p15, %r153, %r148, %r149, %r151; #1": FIRST_LANE,
    },
    "reduce": {
        "kind of a shuffle: shfl.sync.down.b32 %r79|%p16, %r77, %r78, %r70, %r72; #1": FIRST_LANE,
        "kind of a shuffle: shfl.sync.down.b32 %r115|%p24, %r113, %r114, %r106, %r108; #1": FIRST_LANE,
        "elements of a vector swapped: ld.global.v4.f32 {%f12, %f13, %f14, %f15}, [%rd7]; #1":
            "the four elements go into the same sum, maximum and count; their order is within the tolerance",
    },
    "histogram": {
        "branch never taken: @%p7 bra $L__BB0_12; #1": "the branch saves adding zeros",
    },
    "transpose": {
        "thread to lane: mov.u32 %r22, %tid.x; #1": "a row of the block is a warp: %tid.x is %laneid",
    },
    "quantize_4": {
        "equality inverted: setp.ne.s32 %p19, %r4, 0; #1": SAME_VALUE,
        "bit of a mask cleared: and.b32 %r4, %r2, 31; #1": SAME_VALUE,
        "compared constant: setp.ne.s32 %p19, %r4, 0; #1": SAME_VALUE,
        "moved constant: mov.u32 %r41, 8; #1":
            "minimum and maximum over a full butterfly: 16, 9, 4, 2 and 1 also reach every lane from every lane",
        "zero moved: mov.f32 %f58, 0f00000000; #1": "the value of a lane past the end of the row, which is never used",
    },
    "flash_decode": {
        "branch never taken: @%p11 bra $L__BB0_18; #1": EMPTY_TILE,
        "comparison at the bound: setp.ge.s32 %p11, %r746, %r30; #1": EMPTY_TILE,
        "comparison at the bound: setp.lt.s32 %p17, %r746, %r30; #1": EMPTY_TILE,
        "bit of a mask cleared: and.b32 %r722, %r723, 31; #1":
            "the lane is only compared with 3, and 2 stands on the same side as 3",
        "compared constant: setp.ne.s32 %p41, %r715, 0; #1":
            "all threads of a head have the same maximum and sum; one of them writes both",
        "zero moved: mov.f32 %f255, 0f00000000; #1": NO_WEIGHT_YET,
        "zero moved: mov.f32 %f255, 0f00000000; #2": NO_WEIGHT_YET,
        "kind of a shuffle: shfl.sync.bfly.b32 %r699|%p36, %r697, %r671, %r670, %r673; #1":
            "only lanes 0 to 3 are read, and they have no lane below in this step",
    },
    "flash_combine": {
        "branch never taken: @%p17 bra $L__BB0_13; #1": "there is at least one run: flash_decode has a grid of as many",
        "kind of a shuffle: shfl.sync.down.b32 %r29|%p5, %r27, %r28, %r20, %r22; #1": FIRST_LANE,
        "kind of a shuffle: shfl.sync.down.b32 %r52|%p13, %r50, %r51, %r43, %r45; #1": FIRST_LANE,
    },
}
