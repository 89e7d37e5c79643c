"""Reading the text of compiled programs."""

import jax
import jax.numpy as jnp
import pytest

from train.cost.hlo import Messages, Program

TEXT = """\
HloModule jit_step, is_scheduled=true

%fused (param_0: f32[4,8]) -> f32[4,8] {
  %param_0 = f32[4,8]{1,0} parameter(0)
  ROOT %all-reduce.9 = f32[4,8]{1,0} all-reduce(%param_0), replica_groups={{0,1}}, to_apply=%add
}

%less (state: (s32[], bf16[16,128], f32[8])) -> pred[] {
  %three = s32[] constant(3)
  %state.1 = (s32[], bf16[16,128]{1,0}, f32[8]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %compared = pred[] compare(%i.1, %three), direction=LT
}

%slicing (stack: f32[5,64], place: s32[], new: f32[64]) -> f32[5,64] {
  %stack = f32[5,64]{1,0} parameter(0)
  %new = f32[64]{0} parameter(2)
  %place = s32[] parameter(1)
  ROOT %updated = f32[5,64]{1,0} dynamic-update-slice(%stack, %new, %place)
}

%body (state: (s32[], bf16[16,128], f32[8])) -> (s32[], bf16[16,128], f32[8]) {
  %state = (s32[], bf16[16,128]{1,0:T(8,128)(2,1)}, f32[8]{0}) parameter(0)
  %part = bf16[16,128]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %all = f32[5,64]{1,0} get-tuple-element(%state), index=3
  %one = f32[64]{0} get-tuple-element(%state), index=4
  %whole = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather(%part), replica_groups=[2,4]<=[8], dimensions={0}
  %row = bf16[1,128]{1,0} dynamic-slice(%whole, %zero), dynamic_slice_sizes={1,128}
  %stacked = f32[5,64]{1,0} fusion(%all, %i, %one), kind=kLoop, calls=%slicing
  ROOT %out = (s32[], bf16[16,128]{1,0}, f32[8]{0}) tuple(%i, %part, %rest)
}

ENTRY %main (param: f32[4,8]) -> f32[4,8] {
  %param = f32[4,8]{1,0} parameter(0), metadata={op_name="all-gather(x)"}
  %fusion = f32[4,8]{1,0} fusion(%param), kind=kLoop, calls=%fused
  %loop = (s32[], bf16[16,128]{1,0}, f32[8]{0}) while(%start), condition=%less, body=%body
  %sums = (f32[10]{0}, f32[5,2]{1,0}) all-reduce(%a, %b), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %mine = f32[2,8]{1,0} reduce-scatter(%fusion), replica_groups={{0,1}}, dimensions={0}, to_apply=%add
  %sent = (f32[8,320]{1,0}, f32[8,320]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%c)
  ROOT %arrived = f32[8,320]{1,0} collective-permute-done(%sent)
}
"""


def test_counts_messages_by_kind_and_bytes_for_each_send():
    assert Program(TEXT).messages() == {
        "all-reduce": Messages(1, 2 * (40 + 40) * 3 / 4),  # not the one inside the fusion
        "reduce-scatter": Messages(1, 4 * 8 * 4 / 2),
        "collective-permute": Messages(1, 8 * 320 * 4),
        "all-gather": Messages(3, 3 * 64 * 128 * 2 * 3 / 4),
    }


def test_traffic_counts_operands_and_results_for_each_move():
    gather, row, update = (16 + 64) * 128 * 2, 2 * 128 * 2, 2 * 64 * 4  # the update is in place
    # Once each: a fusion of one array into another, two sums, a scatter, a send.
    entry = 2 * 4 * 8 * 4 + 2 * 40 + (4 * 8 + 2 * 8) * 4 + 2 * 8 * 320 * 4
    assert Program(TEXT).traffic() == 3 * (gather + row + update) + entry


ON_GPU = """\
ENTRY %main (a: f32[4,8], b: f32[8]) -> f32[2,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %parts = ((f32[4,8]{1,0}, f32[8]{0}), (f32[2,8]{1,0}, f32[4]{0})) reduce-scatter-start(%a, %b), \
replica_groups={{0,1}}, dimensions={0}, to_apply=%add
  %done = (f32[2,8]{1,0}, f32[4]{0}) reduce-scatter-done(%parts)
  %c = f32[2,8]{1,0} get-tuple-element(%done), index=0
  %product = (f32[2,2]{1,0}, s8[4096]{0}) custom-call(%c), custom_call_target="__cublas$lt$matmul"
}
"""


def test_programs_for_gpus_are_read():
    program = Program(ON_GPU)
    assert program.messages() == {"reduce-scatter": Messages(1, 4 * (2 * 8 + 4) * 2 / 2)}
    assert program.traffic() == 4 * (40 + 20 + 2 * 8 + 2 * 2)  # without cuBLAS's workspace


LOOP_ON_GPU = """\
%less (i: s32[]) -> pred[] {
  %i = s32[] parameter(0)
  %fifty = s32[] constant(50)
  ROOT %compared = pred[] compare(%i, %fifty), direction=LT
}

%condition (state: (s32[], f32[4,8])) -> pred[] {
  %state = (s32[], f32[4,8]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%state), index=0
  ROOT %compare_fusion = pred[] fusion(%n), kind=kLoop, calls=%less
}

%body (state: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %state = (s32[], f32[4,8]{1,0}) parameter(0)
  %x = f32[4,8]{1,0} get-tuple-element(%state), index=1
  ROOT %sine = f32[4,8]{1,0} sine(%x)
}

ENTRY %main (state: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %state = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[4,8]{1,0}) while(%state), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"50"}}
}
"""


def test_a_loop_for_gpus_counts_all_its_iterations():
    """There the condition is a fusion, with its constant inside."""
    assert Program(LOOP_ON_GPU).traffic() == 50 * 2 * 4 * 8 * 4


BRANCHES = """\
%small (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  ROOT %sine = f32[4,8]{1,0} sine(%x)
}

%large (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %sine = f32[4,8]{1,0} sine(%x)
  ROOT %cosine = f32[4,8]{1,0} cosine(%sine)
}

ENTRY %main (which: s32[], x: f32[4,8]) -> f32[4,8] {
  %which = s32[] parameter(0)
  %x = f32[4,8]{1,0} parameter(1)
"""


@pytest.mark.parametrize(
    "branches",
    ["branch_computations={%large, %small, %large}", "true_computation=%large, false_computation=%small"],
)
def test_of_several_branches_the_least_counts(branches):
    chosen = f"  ROOT %chosen = f32[4,8]{{1,0}} conditional(%which, %x, %x, %x), {branches}\n}}\n"
    assert Program(BRANCHES + chosen).traffic() == 2 * 4 * 8 * 4


ON_CHIP = """\
%deeper (whole: f32[8,64]) -> f32[2,64] {
  %whole = f32[8,64]{1,0} parameter(0)
  ROOT %part = f32[2,64]{1,0} slice(%whole), slice={[0:2], [0:64]}
}

%inner (stack: f32[8,64], near: f32[2,64]) -> f32[2,64] {
  %near = f32[2,64]{1,0:T(2,128)S(1)} parameter(1)
  %stack = f32[8,64]{1,0:T(8,128)} parameter(0)
  %first = f32[2,64]{1,0} fusion(%stack), kind=kLoop, calls=%deeper
  ROOT %sum = f32[2,64]{1,0:T(2,128)} add(%first, %near)
}

%placing (new: f32[2,64]) -> f32[8,64] {
  %space = f32[8,64]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %new = f32[2,64]{1,0} parameter(0)
  ROOT %placed = f32[8,64]{1,0} dynamic-update-slice(%space, %new, %zero, %zero)
}

ENTRY %main (far: f32[8,64]) -> f32[8,64] {
  %far = f32[8,64]{1,0:T(8,128)} parameter(0)
"""


@pytest.mark.parametrize(
    ("instructions", "moved"),
    [
        ("%x = f32[8,64]{1,0:T(8,128)S(1)} negate(%far)", 8 * 64),
        ("%x = (bf16[2,64]{1,0:T(8,128)(2,1)S(1)}, f32[64]{0}) custom-call(%a)", 64),
        (
            "%x = (f32[8,64]{1,0:S(1)}, f32[8,64]{1,0}, u32[]{:S(2)}) copy-start(%far)\n"
            "  %y = f32[8,64]{1,0:S(1)} copy-done(%x)\n"
            "  %z = f32[8,64]{1,0:S(1)} add(%y, %y)",
            8 * 64,
        ),
        (
            "%x = ((f32[8,64]{1,0}), f32[2,64]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%far), slice={[0:2], [0:64]}\n"
            "  %y = f32[2,64]{1,0:S(1)} slice-done(%x)",
            2 * 64,
        ),
        ("%n = f32[2,64]{1,0:S(1)} slice(%far)\n  %x = f32[2,64]{1,0} fusion(%far, %n), calls=%inner", 3 * 2 * 64),
        ("%n = f32[2,64]{1,0:S(1)} slice(%far)\n  %x = f32[8,64]{1,0} fusion(%n), calls=%placing", 2 * 2 * 64),
    ],
    ids=["result on chip", "one of two results", "copied", "sliced", "read by a fusion", "placed by a fusion"],
)
def test_data_that_stays_on_the_chip_is_not_traffic(instructions, moved):
    assert Program(ON_CHIP + f"  {instructions}\n}}\n").traffic() == 4 * moved


@pytest.mark.filterwarnings("ignore")
def test_a_real_program_is_read():
    def loop(x):
        return jax.lax.fori_loop(0, 5, lambda _, x: jnp.sin(x @ x), x)

    square = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    program = Program(jax.jit(loop).lower(square).compile().as_text())
    assert program.messages() == {}
    # Each iteration reads and writes a matrix, and moves an activation at most twice.
    assert 5 * 2 * 64 * 64 * 4 <= program.traffic() <= 6 * 8 * 64 * 64 * 4
