"""How large a VHD is: geometries of sizes, and which creators mean the geometry."""

from __future__ import annotations

import pytest

from drivebay.errors import StorageError
from drivebay.formats.vhd.sizes import (
    LARGEST_GEOMETRY,
    MAX_CHS_SIZE,
    SizeRule,
    capacity,
    disk_size,
    geometry_of,
    rounded,
    stored_geometry,
)
from drivebay.model import Geometry
from support.vhd_images import make_footer

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        (3 * MIB, Geometry(90, 4, 17)),  # these five are VirtualBox's and QEMU's, in images
        (5 * MIB, Geometry(150, 4, 17)),
        (8 * MIB, Geometry(240, 4, 17)),
        (32 * MIB, Geometry(963, 4, 17)),
        (4212736, Geometry(121, 4, 17)),
        (136 * MIB, Geometry(561, 16, 31)),
        (504 * MIB, Geometry(1024, 16, 63)),
        (GIB, Geometry(2080, 16, 63)),
        (40 * GIB, Geometry(20560, 16, 255)),
        (2040 * GIB, LARGEST_GEOMETRY),
        (512, Geometry(0, 4, 17)),
    ],
)
def test_the_geometry_of_a_size(size: int, geometry: Geometry) -> None:
    assert geometry_of(size) == geometry


@pytest.mark.parametrize("size", [512, MIB, 8 * MIB, 100 * MIB, GIB, 20 * GIB, 100 * GIB, MAX_CHS_SIZE])
def test_the_chs_rule_rounds_up_to_what_a_geometry_spans(size: int) -> None:
    larger = rounded(size, SizeRule.CHS)
    assert size <= larger < size + 16 * 255 * 512 * 2
    assert capacity(geometry_of(larger)) == larger
    assert rounded(larger, SizeRule.CHS) == larger


def test_the_other_rules() -> None:
    assert rounded(3 * MIB + 512, SizeRule.EXACT) == 3 * MIB + 512
    assert rounded(3 * MIB + 512, SizeRule.AZURE) == 4 * MIB
    with pytest.raises(StorageError, match="Virtual PC"):
        rounded(MAX_CHS_SIZE + 512, SizeRule.CHS)


def test_a_size_that_no_geometry_spans_gets_the_one_that_says_so() -> None:
    assert stored_geometry(4212736) == Geometry(121, 4, 17)
    assert stored_geometry(4 * MIB) == LARGEST_GEOMETRY


@pytest.mark.parametrize(
    ("creator", "expected"),
    [
        (b"vpc ", 8355840),
        (b"vs  ", 8355840),
        (b"qemu", 8355840),
        (b"qem2", 8388608),
        (b"vbox", 8388608),
        (b"win ", 8388608),
        (b"d2v\0", 8388608),
        (b"tap\0", 8388608),
    ],
)
def test_who_means_the_geometry(creator: bytes, expected: int) -> None:
    footer = make_footer(creator=creator, current_size=8 * MIB, cylinders=240, heads=4, sectors=17)
    assert disk_size(footer) == expected


@pytest.mark.parametrize("geometry", [(0, 4, 17), (65535, 16, 255), (241, 4, 17)])
def test_a_geometry_that_says_nothing_or_too_much_is_not_the_size(geometry: tuple[int, int, int]) -> None:
    cylinders, heads, sectors = geometry
    footer = make_footer(
        creator=b"vpc ", current_size=8 * MIB, cylinders=cylinders, heads=heads, sectors=sectors
    )
    assert disk_size(footer) == 8 * MIB
