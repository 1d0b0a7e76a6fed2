"""Cells and columns of tables."""

from grhpc.evaluate.figures import figure, share
from grhpc.evaluate.table import aligned, cell, p_value, points, signed, with_error


def test_a_figure_in_points_with_its_error_or_its_interval():
    found = share([1.0, 1.0, 0.0, 1.0])
    assert with_error(found) == "75.0 ± 25.0"
    assert cell(found) == "75.0 (30.1 to 95.4)"
    assert cell(figure(0.015, 0.01, (-0.004, 0.034)), signed) == "+1.5 (-0.4 to +3.4)"


def test_what_was_not_computed_is_a_dash():
    nothing = figure(None)
    assert points(None) == signed(None) == cell(nothing) == with_error(nothing) == p_value(None) == "–"
    assert with_error(figure(0.5)) == "50.0", "no error of a single question"


def test_small_p_values_are_not_zero():
    assert (p_value(0.0), p_value(0.0009), p_value(0.0461), p_value(1.0)) == ("< 0.001", "< 0.001", "0.046", "1.000")


def test_columns_stand_under_each_other():
    assert aligned([("", "n"), ("long name", "7"), ("x", "1234")]) == [
        "              n",
        "long name     7",
        "x          1234",
    ]
