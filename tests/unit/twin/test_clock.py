"""Step plan: grid, zoom windows, knots."""

from hypothesis import given
from hypothesis import strategies as st

from twin.world.clock import TICK_US, Clock, to_us


def steps(clock, until=None):
    """Let the clock run alone; the ends of all steps."""
    ends = []

    def plant():
        while clock.now_us < clock.end_us:
            yield clock.env.timeout(clock.next_step_us())
            ends.append(clock.now_us)
            if until and clock.now_us == until[0]:
                until[1]()

    clock.env.process(plant())
    clock.env.run()
    return ends


def test_regular_grid():
    assert steps(Clock(1.0, 0.1, 60.0, 5.0)) == [1_000_000 * k for k in range(1, 6)]


def test_zoom_window_and_back_to_the_grid():
    clock = Clock(1.0, 0.25, 1.5, 6.0)
    ends = steps(clock, until=(2_000_000, lambda: clock.zoom("trip")))
    fine = [2.25, 2.5, 2.75, 3.0, 3.25, 3.5]
    assert ends == [round(s * 1e6) for s in [1.0, 2.0, *fine, 4.0, 5.0, 6.0]]
    assert [(w.start_us, w.end_us, w.reasons) for w in clock.windows] == [(2_000_000, 3_500_000, ["trip"])]


def test_overlapping_windows_merge():
    clock = Clock(1.0, 0.5, 2.0, 10.0)
    clock.zoom("activation")
    clock.env.run(until=1_000_000)
    clock.zoom("fault")
    assert [(w.start_us, w.end_us, w.reasons) for w in clock.windows] == [
        (0, 3_000_000, ["activation", "fault"])
    ]


def test_knot_cuts_a_step():
    clock = Clock(60.0, 60.0, 0.0, 180.0)
    clock.add_knot(to_us(90.5))
    assert steps(clock) == [60_000_000, 90_500_000, 120_000_000, 180_000_000]


@given(
    st.floats(0.02, 7),
    st.floats(0.01, 10),
    st.floats(0, 8),
    st.lists(st.floats(0, 20), max_size=4),
)
def test_every_step_is_whole_ticks_and_ends_meet_the_end(step, zoom, after, knots):
    clock = Clock(step, zoom, after, 20.0)
    for knot in knots:
        clock.add_knot(to_us(knot))
    clock.zoom("activation")
    ends = steps(clock)
    assert ends[-1] == clock.end_us
    lengths = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert all(length > 0 and length % TICK_US == 0 for length in lengths)
    assert {to_us(k) for k in knots if 0 < to_us(k) <= clock.end_us} <= set(ends)
