"""What a compiled program moves, against sums by hand."""

import pytest

from flax_transformer.planning.hlo import Collective, traffic

pytestmark = pytest.mark.optimized

PROGRAM = """HloModule jit_step, is_scheduled=true

%cut (param_0.1: f32[4,256], param_1.1: s32[]) -> f32[256] {
  %param_0.1 = f32[4,256]{1,0:T(4,128)} parameter(0)
  %param_1.1 = s32[]{:T(128)} parameter(1)
  %zero.1 = s32[]{:T(128)} constant(0)
  %row.1 = f32[1,256]{1,0:T(1,128)} dynamic-slice(%param_0.1, %param_1.1, %zero.1), dynamic_slice_sizes={1,256}
  ROOT %flat.1 = f32[256]{0:T(256)} bitcast(%row.1)
}

%write (param_0.2: f32[4,256], param_1.2: f32[1,256], param_2.2: s32[]) -> f32[4,256] {
  %param_0.2 = f32[4,256]{1,0:T(4,128)} parameter(0)
  %param_1.2 = f32[1,256]{1,0:T(1,128)} parameter(1)
  %param_2.2 = s32[]{:T(128)} parameter(2)
  ROOT %written.2 = f32[4,256]{1,0:T(4,128)} dynamic-update-slice(%param_0.2, %param_1.2, %param_2.2, %param_2.2)
}

%body (arg.3: (s32[], f32[4,256], f32[4,256])) -> (s32[], f32[4,256], f32[4,256]) {
  %arg.3 = (s32[]{:T(128)}, f32[4,256]{1,0:T(4,128)}, f32[4,256]{1,0:T(4,128)}) parameter(0)
  %i.3 = s32[]{:T(128)S(6)} get-tuple-element(%arg.3), index=0
  %table.3 = f32[4,256]{1,0:T(4,128)} get-tuple-element(%arg.3), index=1
  %rows.3 = f32[4,256]{1,0:T(4,128)} get-tuple-element(%arg.3), index=2
  %row.3 = f32[256]{0:T(256)S(1)} fusion(%table.3, %i.3), kind=kLoop, calls=%cut
  %summed.3 = f32[256]{0:T(256)S(1)} all-reduce(%row.3), replica_groups={{0,1,2,3}}, to_apply=%add
  %again.3 = f32[4,256]{1,0:T(4,128)} fusion(%rows.3, %summed.3, %i.3), kind=kLoop, calls=%write
  ROOT %out.3 = (s32[]{:T(128)}, f32[4,256]{1,0:T(4,128)}, f32[4,256]{1,0:T(4,128)}) tuple(%i.3, %table.3, %again.3)
}

%condition (arg.4: (s32[], f32[4,256], f32[4,256])) -> pred[] {
  %four.4 = s32[]{:T(128)} constant(4)
  %arg.4 = (s32[]{:T(128)}, f32[4,256]{1,0:T(4,128)}, f32[4,256]{1,0:T(4,128)}) parameter(0)
  %i.4 = s32[]{:T(128)} get-tuple-element(%arg.4), index=0
  ROOT %less.4 = pred[]{:T(512)} compare(%i.4, %four.4), direction=LT
}

ENTRY %main (param.1: bf16[512,128], param.2: f32[4,256]) -> f32[4,256] {
  %param.1 = bf16[512,128]{1,0:T(8,128)(2,1)} parameter(0)
  %param.2 = f32[4,256]{1,0:T(4,128)} parameter(1)
  LINES
}
"""


FETCH = "%whole.9 = (f32[4,256]{1,0:T(4,128)S(1)}, f32[4,256]{1,0:T(4,128)}, u32[]{:S(2)}) copy-start(%param.2)"
PART = "%part.9 = ((bf16[512,128]{1,0:T(8,128)}), bf16[64,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%param.1)"
KERNEL = '%out.9 = bf16[512,128]{1,0:T(8,128)(2,1)} custom-call(%param.1), custom_call_target="tpu_custom_call"'
ROOM = '%room.9 = f32[4,256]{1,0:T(4,128)} custom-call(), custom_call_target="AllocateBuffer"'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%sum.9 = f32[4,256]{1,0:T(4,128)} add(%param.2, %param.2)", 3 * 4096),
        ("%sum.9 = f32[4,256]{1,0:T(4,128)S(1)} add(%param.2, %param.2)", 2 * 4096),  # the result stays on the chip
        ("%same.9 = f32[1024]{0:T(1024)} bitcast(%param.2)", 0),
        (FETCH, 4096),
        (PART, 64 * 128 * 2),
        (KERNEL, 2 * 512 * 128 * 2),
        (ROOM, 0),
    ],
)
def test_bytes_of_an_instruction(line: str, expected: float) -> None:
    assert traffic(PROGRAM.replace("LINES", line)).hbm == expected


def test_a_loop_moves_what_its_body_does_as_often_as_it_runs() -> None:
    loop = (
        "%init.9 = (s32[]{:T(128)}, f32[4,256]{1,0:T(4,128)}, f32[4,256]{1,0:T(4,128)}) tuple(%param.2)",
        "%loop.9 = (s32[]{:T(128)}, f32[4,256]{1,0:T(4,128)}) while(%init.9), condition=%condition, body=%body",
    )
    moved = traffic(PROGRAM.replace("LINES", "\n  ".join(loop)))
    # Of each table one row of 1,024 bytes is read or written in each round, not the whole.
    assert moved.hbm == 4 * (1024 + 1024)
    assert moved.collectives == {"all-reduce": Collective(4, 4 * 1024, 4 * 1024 * 2 * 3 / 4)}


COLLECTIVES = """ENTRY %main () -> f32[] {
  %all-reduce.1 = f32[128,8]{1,0} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%add
  %all-reduce.2 = (f32[4]{0}, bf16[6]{0}) all-reduce(%y, %z), replica_groups={{0,1},{2,3}}, to_apply=%add
  %gather.3 = (bf16[2,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%w), replica_groups=[1,8]<=[8], dimensions={0}
  %done.3 = bf16[16,8]{1,0} all-gather-done(%gather.3)
  %reduce-scatter.4 = f32[16]{0} reduce-scatter(%v), replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
  %all-to-all.7 = bf16[8]{0:T(256)(128)(2,1)S(1)} all-to-all(%t), replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  %collective-permute.5 = s32[10]{0} collective-permute(%u), source_target_pairs={{0,1},{1,0}}
  %add.6 = f32[128,8]{1,0} add(%all-reduce.1, %all-reduce.1)
}
"""


def test_collectives_are_counted_by_kind_with_the_bytes_that_a_ring_sends() -> None:
    assert traffic(COLLECTIVES).collectives == {
        "all-gather": Collective(1, 256, 256 * 7 / 8),
        "all-reduce": Collective(2, 4096 + 28, 2 * 4096 * 3 / 4 + 2 * 28 * 1 / 2),
        "all-to-all": Collective(1, 16, 16 * 3 / 4),
        "collective-permute": Collective(1, 40, 40.0),
        "reduce-scatter": Collective(1, 512, 512 * 7 / 8),
    }


ASYNCHRONOUS = """HloModule jit_step, is_scheduled=true

%begin (param_0.1: bf16[16,128]) -> (bf16[16,128], bf16[128,128], u32[]) {
  %param_0.1 = bf16[16,128]{1,0:T(8,128)} parameter(0)
  %gather.1 = bf16[128,128]{1,0:T(8,128)} all-gather(%param_0.1), replica_groups=[1,8]<=[8]
  ROOT %start.1 = (bf16[16,128], bf16[128,128], u32[]) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}

%beside (param_0.2: bf16[16,128], param_1.2: bf16[128,128], param_2.2: f32[64]) -> (f32[64], bf16[128,128]) {
  %param_0.2 = bf16[16,128]{1,0:T(8,128)} parameter(0)
  %param_1.2 = bf16[128,128]{1,0:T(8,128)} parameter(1)
  %param_2.2 = f32[64]{0:T(256)} parameter(2)
  %gather.2 = bf16[128,128]{1,0:T(8,128)} all-gather(%param_0.2), replica_groups=[1,8]<=[8], dimensions={0}
  %sum.2 = f32[64]{0:T(256)} add(%param_2.2, %param_2.2)
  ROOT %both.2 = (f32[64]{0:T(256)}, bf16[128,128]{1,0:T(8,128)}) tuple(%sum.2, %param_1.2)
}

%end (param_0.3: bf16[16,128], param_1.3: bf16[128,128]) -> bf16[128,128] {
  %param_0.3 = bf16[16,128]{1,0:T(8,128)} parameter(0)
  %param_1.3 = bf16[128,128]{1,0:T(8,128)} parameter(1)
  %gather.3 = bf16[128,128]{1,0:T(8,128)} all-gather(%param_0.3), replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %done.3 = bf16[128,128] custom-call(%param_1.3, %gather.3), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.4 (param_0.4: f32[64]) -> f32[8] {
  %param_0.4 = f32[64]{0:T(256)} parameter(0)
  %whole.4 = f32[64]{0:T(256)} all-reduce(%param_0.4), replica_groups=[1,8]<=[8], to_apply=%add
  %chip.4 = u32[] partition-id()
  ROOT %own.4 = f32[8]{0:T(256)} dynamic-slice(%whole.4, %chip.4), dynamic_slice_sizes={8}
}

ENTRY %main (w: bf16[16,128], x: f32[64]) -> f32[8] {
  %w = bf16[16,128]{1,0:T(8,128)} parameter(0)
  %x = f32[64]{0:T(256)} parameter(1)
  %started = (bf16[16,128]{1,0:T(8,128)}, bf16[128,128]{1,0:T(8,128)}, u32[]{:S(2)}) fusion(%w), calls=%begin
  %room = bf16[128,128]{1,0:T(8,128)} get-tuple-element(%started), index=1
  %passed = (f32[64]{0:T(256)}, bf16[128,128]{1,0:T(8,128)}) fusion(%w, %room, %x), calls=%beside
  %sum = f32[64]{0:T(256)} get-tuple-element(%passed), index=0
  %gathered = bf16[128,128]{1,0:T(8,128)} fusion(%w, %room), calls=%end
  ROOT %part = f32[8]{0:T(256)} fusion(%sum), calls=%all-reduce-scatter.4
}
"""


def test_a_collective_that_goes_on_beside_fusions_is_counted_where_it_starts() -> None:
    moved = traffic(ASYNCHRONOUS)
    assert moved.collectives == {
        "all-gather": Collective(1, 128 * 128 * 2, 128 * 128 * 2 * 7 / 8),
        "reduce-scatter": Collective(1, 256, 256 * 7 / 8),
    }
    beside = 2 * 256
    assert moved.hbm == (16 + 128) * 128 * 2 + beside + 256 + 32
