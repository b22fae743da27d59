"""The map of Pins: places, neighbours and colours, by hand."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from trainers.report.embedding_map import Colouring, EmbeddingMap, _colouring, _unevenness, nearest, pca
from trainers.report.page import render
from trainers.report.schema import Report


def small_map(name: str = "red shoe (7)") -> EmbeddingMap:
    return EmbeddingMap(
        view="pin_embedding_ctr_v1",
        day="2024-03-02",
        projections={"PCA": ((0, 0), (1000, 500), (400, 1000))},
        explained=0.8,
        names=(name, "blue shoe (8)", "hat (9)"),
        colourings=(Colouring(name="kind", values=("shoe", "hat"), groups=(0, 0, 1)),),
        neighbours=(((1, 0.9),), ((0, 0.9),), ((1, 0.1),)),
        dim=4,
        num_pins=10,
    )


def test_pca_finds_the_direction_of_most_variance() -> None:
    vectors = np.array([[2, 1, 0], [-2, 1, 0], [0, 1, 1], [0, 1, -1]], np.float32)
    places, explained = pca(vectors)
    assert np.abs(places) == pytest.approx(np.array([[2, 0], [2, 0], [0, 1], [0, 1]]), abs=1e-5)
    assert explained == pytest.approx(1.0)


def test_neighbours_are_others_by_cosine() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    assert nearest(vectors) == (((1, 0.6), (2, 0.0)), ((2, 0.8), (0, 0.6)), ((1, 0.8), (0, 0.0)))


def test_map_is_coloured_first_by_what_tells_pins_apart() -> None:
    """Two Pins are alike with a chance of 1/2 where halves differ, and of 10/16 where one of four does."""
    halves, one = (Colouring(name="kind", values=("a", "b"), groups=groups) for groups in ((0, 0, 1, 1), (0, 1, 1, 1)))
    assert (_unevenness(halves), _unevenness(one)) == (0.5, 0.625)


def test_rare_values_share_a_colour() -> None:
    values = [*"aaabbbccdd", *"efg", None]
    found = _colouring("kind", pa.chunked_array([values]))
    assert found is not None
    assert found.values == ("a", "b", "c", "d", "e", "3 others")
    assert found.groups == (0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 5, 5)
    assert _colouring("kind", pa.chunked_array([["a", "a"]])) is None


def test_page_shows_the_map_and_escapes_names(report: Report) -> None:
    html = render(report, None, small_map("</script><script>alert(1)</script>"))
    assert "alert(1)</script>" not in html
    data = html.partition('id="map-data">')[2].partition("</script>")[0]
    assert json.loads(data)["names"][0] == "</script><script>alert(1)</script>"
    assert html.count("<circle") == 3
    assert "The 3 most shown of 10 Pins" in html
