"""What places decide: known edges are found again, and places go round."""

from __future__ import annotations

from faultprobe.effects import Counts, Effects, Range, explore


def explored(edges: tuple[int, int], span: int, stride: int, unit: int) -> dict[int, Counts]:
    found: dict[int, Counts] = {}

    def rises(place: int) -> Counts:
        found[place % span] = (int(edges[0] <= place % span < edges[1]),)
        return found[place % span]

    explore(rises, span, stride, unit)
    return found


def test_edges_between_samples_are_found() -> None:
    found = explored((37, 199), span=512, stride=64, unit=1)
    assert len(found) < 30
    assert Effects(found).ranges(512) == [Range(0, 36, (0,)), Range(37, 198, (1,)), Range(199, 511, (0,))]


def test_an_edge_behind_the_last_sample_is_found() -> None:
    found = explored((500, 512), span=512, stride=64, unit=1)
    assert Effects(found).ranges(512) == [Range(0, 511, (0,))]
    found = explored((430, 510), span=512, stride=64, unit=1)
    assert Effects(found).ranges(512)[1:] == [Range(430, 509, (1,)), Range(510, 511, (0,))]


def test_a_span_that_is_no_multiple_of_the_stride() -> None:
    found = explored((60, 97), span=100, stride=64, unit=1)
    assert Effects(found).ranges(100) == [Range(0, 59, (0,)), Range(60, 96, (1,)), Range(97, 99, (0,))]


def test_below_the_lowest_known_place_the_highest_one_holds() -> None:
    effects = Effects({100: (0, 1), 300: (2, 3)})
    assert [effects.at(place) for place in (0, 99, 100, 299, 300)] == [(2, 3), (2, 3), (0, 1), (0, 1), (2, 3)]
    assert effects.relative_to((5, 5), 150).at(0) == (7, 7)
    assert [tuple(each) for each in effects.ranges(512)] == [
        (0, 99, (2, 3)),
        (100, 299, (0, 1)),
        (300, 511, (2, 3)),
    ]
