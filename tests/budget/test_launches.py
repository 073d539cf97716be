"""Kernels are counted as a card starts them: what fusion leaves, loops as often as they turn."""

from tds_jax.budget.launches import launches

PROGRAM = """\
HloModule jit_step, is_scheduled=true

%fused_computation (param_0: f32[4]) -> f32[4] {
  %param_0 = f32[4]{0} parameter(0)
  %a = f32[4]{0} add(%param_0, %param_0)
  ROOT %b = f32[4]{0} multiply(%a, %a)
}

%inner (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %f.1 = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused_computation
  ROOT %t = (s32[], f32[4]{0}) tuple(%f.1)
}

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p.1 = (s32[], f32[4]{0}) parameter(0)
  %w = (s32[], /*index=1*/f32[4]{0}) while(%p.1), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"45"}}
  %g = (f32[4]{0}, s8[16]{0}) custom-call(%w), custom_call_target="__cublas$gemm"
  ROOT %t.1 = (s32[], f32[4]{0}) tuple(%g)
}

%command_buffer (p: f32[4]) -> f32[4] {
  %p.2 = f32[4]{0} parameter(0)
  ROOT %f.2 = f32[4]{0} fusion(%p.2), kind=kLoop, calls=%fused_computation
}

ENTRY %main (state: f32[4]) -> f32[4] {
  %state = f32[4]{0} parameter(0)
  %zero = s32[] constant(0)
  %v = f32[2,2]{1,0} bitcast(%state)
  %loop = (s32[], f32[4]{0}) while(%state), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"4"}}
  %call = f32[4]{0} call(%loop), to_apply=%command_buffer
  %start = (f32[4]{0}, f32[4]{0}) copy-start(%call)
  ROOT %done = f32[4]{0} copy-done(%start)
}
"""  # noqa: E501


def test_loops_count_by_their_turns_and_views_do_not_count():
    assert launches(PROGRAM) == 4 * (45 + 1) + 1 + 1


def test_a_loop_of_unknown_length_counts_one_turn():
    unknown = PROGRAM.replace(', backend_config={"known_trip_count":{"n":"4"}}', "")
    assert launches(unknown) == (45 + 1) + 1 + 1
