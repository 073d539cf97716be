"""Clouds of every layout and ending hold the points written; a wrong file is named."""

import re

import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.voxel.data import pcd, ply
from tds_jax.voxel.data.clouds import LAYOUTS, read_cloud
from tests.voxel.files import write_kitti, write_pcd, write_vod_radar

RNG = np.random.default_rng(0)
POINTS = RNG.normal(0, 10, (20, 3)).astype(np.float32)
INTENSITY, DOPPLER = RNG.normal(size=(2, 20)).astype(np.float32)


def require(cloud, doppler):
    np.testing.assert_array_equal(cloud.points, POINTS)
    np.testing.assert_array_equal(cloud.intensity, INTENSITY)
    np.testing.assert_array_equal(cloud.doppler, DOPPLER if doppler else np.full(20, np.nan))
    for array in (cloud.points, cloud.intensity, cloud.doppler):
        assert array.dtype == np.float32
    assert cloud.dropped == 0


@pytest.mark.parametrize("layout", ["kitti", "vod_lidar"])
def test_kitti_bin(tmp_path, layout):
    write_kitti(tmp_path / "a.bin", POINTS, INTENSITY)
    require(read_cloud(tmp_path / "a.bin", layout), doppler=False)


def test_a_file_without_points_is_a_cloud_without_points(tmp_path):
    (tmp_path / "a.bin").touch()
    assert read_cloud(tmp_path / "a.bin", "kitti").points.shape == (0, 3)


def test_view_of_delft_radar_bin_gives_the_measured_not_the_compensated_speed(tmp_path):
    write_vod_radar(tmp_path / "a.bin", POINTS, INTENSITY, DOPPLER)
    require(read_cloud(tmp_path / "a.bin", "vod_radar"), doppler=True)


def test_ntu_npy(tmp_path):
    np.save(tmp_path / "r.npy", np.column_stack([POINTS, INTENSITY, DOPPLER]).astype(np.float64))
    np.save(tmp_path / "l.npy", np.column_stack([POINTS, INTENSITY]))
    require(read_cloud(tmp_path / "r.npy", "ntu_radar"), doppler=True)
    require(read_cloud(tmp_path / "l.npy", "ntu_lidar"), doppler=False)


@pytest.mark.parametrize("data", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("names", [("intensity", "velocity"), ("RCS", "v_r"), ("power", "doppler")])
def test_pcd_by_its_own_column_names_in_any_order(tmp_path, data, names):
    padding, two = np.ones((20, 2)), np.column_stack([INTENSITY, DOPPLER])  # the first counts
    columns = {names[1]: DOPPLER, "_": padding, **dict(zip("xyz", POINTS.T, strict=True))}
    write_pcd(tmp_path / "a.pcd", {**columns, "ring": padding[:, 0], names[0]: two}, data)
    # the layout is for files that do not name their columns
    require(read_cloud(tmp_path / "a.pcd", "kitti"), doppler=True)


@pytest.mark.parametrize("data", ["ascii", "binary", "binary_compressed"])
def test_pcd_without_intensity_or_points(tmp_path, data):
    write_pcd(tmp_path / "a.pcd", dict(zip("xyz", POINTS.T, strict=True)), data)
    cloud = read_cloud(tmp_path / "a.pcd", "kitti")
    np.testing.assert_array_equal(cloud.points, POINTS)
    assert not cloud.intensity.any()
    write_pcd(tmp_path / "b.pcd", {"x": [], "y": [], "z": []}, data)
    assert read_cloud(tmp_path / "b.pcd", "kitti").points.shape == (0, 3)


def test_compressed_points_that_repeat_and_those_cut_off(tmp_path):
    """Copies from far back, over their own end, and of more than 8 bytes."""
    columns = {"x": np.tile([1.0, 2.0], 500), "y": np.zeros(1000), "z": np.arange(1000) % 3}
    write_pcd(tmp_path / "a.pcd", columns, "binary_compressed")
    content = (tmp_path / "a.pcd").read_bytes()
    assert len(content) < 6000  # of 12000
    found = read_cloud(tmp_path / "a.pcd", "kitti").points
    np.testing.assert_array_equal(found, np.column_stack(list(columns.values())))
    for size in (len(content) - 1, len(content) - 40):
        (tmp_path / "a.pcd").write_bytes(content[:size])
        with pytest.raises(UserError, match=r"a.pcd: its compressed points are damaged \("):
            read_cloud(tmp_path / "a.pcd", "kitti")


@pytest.mark.parametrize("order", [">", "<", ""])
@pytest.mark.parametrize("name", ["intensity", "scalar_Intensity", "reflectance"])
def test_ply_of_every_byte_order(tmp_path, order, name):
    kind = {">": "binary_big_endian", "<": "binary_little_endian", "": "ascii"}[order]
    fields = {"x": "float", "y": "float32", "red": "uchar", "z": "double", name: "float"}
    types = {"float": "f4", "float32": "f4", "uchar": "u1", "double": "f8"}
    rows = np.zeros(20, [(field, order + types[kind]) for field, kind in fields.items()])
    for field, column in (*zip("xyz", POINTS.T, strict=True), (name, INTENSITY)):
        rows[field] = column
    head = ["ply", f"format {kind} 1.0", "comment x", "element vertex 20"]
    head += [f"property {kind} {field}" for field, kind in fields.items()]
    head += ["element face 1", "property list uchar int vertex_indices", "end_header", ""]
    text = "\n".join(" ".join(f"{value:.17g}" for value in row) for row in rows).encode()
    body = (text if kind == "ascii" else rows.tobytes()) + b"\n3 0 1 2\n"
    (tmp_path / "a.ply").write_bytes("\n".join(head).encode() + body)
    require(read_cloud(tmp_path / "a.ply", "kitti"), doppler=False)


@pytest.mark.parametrize(("ending", "encoded"), [("ply", ply.encoded), ("pcd", pcd.encoded)])
def test_what_is_written_is_read_back(tmp_path, ending, encoded):
    columns = dict(zip("xyz", POINTS.T, strict=True))
    content = encoded(columns | {"reflectivity": INTENSITY, "doppler": DOPPLER}, {"run": "a b"})
    assert re.search(rb"^(comment|#) run a b$", content, re.MULTILINE)
    (tmp_path / f"a.{ending}").write_bytes(content)
    require(read_cloud(tmp_path / f"a.{ending}", "kitti"), doppler=True)


def test_las_in_metres_with_its_intensity_and_a_doppler_of_its_own(tmp_path):
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = np.full(3, 0.001), np.float64([100, 0, 0])
    header.add_extra_dim(laspy.ExtraBytesParams("vr", np.float32))
    las = laspy.LasData(header)
    las.x, las.y, las.z = POINTS.T.astype(np.float64)
    las.intensity, las.vr = np.arange(20), DOPPLER
    las.write(tmp_path / "a.laz")
    cloud = read_cloud(tmp_path / "a.laz", "kitti")
    # half a millimetre, and f32 at 100 m (8e-6)
    np.testing.assert_allclose(cloud.points, POINTS, atol=5.1e-4)
    np.testing.assert_array_equal(cloud.intensity, np.arange(20))
    np.testing.assert_array_equal(cloud.doppler, DOPPLER)


def test_points_without_a_place_are_left_out_and_those_without_intensity_are_counted(tmp_path):
    rows = np.column_stack([POINTS, INTENSITY]).astype(np.float64)
    rows[3, 1], rows[5, 3], rows[7, 0] = np.nan, np.inf, 1e300  # the last is beyond float32
    np.save(tmp_path / "a.npy", rows)
    cloud = read_cloud(tmp_path / "a.npy", "ntu_lidar")
    assert (cloud.dropped, cloud.dim) == (2, 1)
    np.testing.assert_array_equal(cloud.points, np.delete(POINTS, [3, 7], axis=0))
    np.testing.assert_array_equal(cloud.intensity[4], 0)


@pytest.mark.parametrize("name", ["v_r", "vr", "radial_speed", "range_rate", "radial_velocity"])
def test_the_usual_names_of_doppler_are_known(tmp_path, name):
    write_pcd(
        tmp_path / "a.pcd", dict(zip("xyz", POINTS.T, strict=True)) | {name: DOPPLER}, "ascii"
    )
    np.testing.assert_allclose(read_cloud(tmp_path / "a.pcd", "kitti").doppler, DOPPLER, rtol=1e-6)


def test_a_velocity_over_ground_gives_its_part_along_the_ray(tmp_path):
    columns = {
        "x": [3.0, 0.0],
        "y": [4.0, 0.0],
        "z": [0.0, 0.0],
        "vx": [-5.0, 1.0],
        "vy": [0.0, 1.0],
    }
    write_pcd(tmp_path / "a.pcd", columns, "ascii")
    np.testing.assert_allclose(read_cloud(tmp_path / "a.pcd", "kitti").doppler, [-3.0, np.nan])


def rows(width, count=200):
    """Points of a street with whatever columns follow."""
    rng = np.random.default_rng(0)
    points = rng.uniform((0, -8, -2), (16, 8, 2), (count, 3))
    return np.column_stack([points, rng.normal(size=(count, width - 3))])


@pytest.mark.parametrize(
    ("width", "layout", "words"),
    [
        (5, "kitti", r"repeat every 5, not every 4: it has hardly the 4 float32 .*_columns"),
        (8, "ntu_radar", r"repeat every 8, not every 5"),
        (7, "kitti", r"repeat every 7, not every 4"),
    ],
)
def test_a_file_of_another_width_is_not_read_as_noise(tmp_path, width, layout, words):
    rows(width, 400).astype("f4").tofile(tmp_path / "a.bin")
    with pytest.raises(UserError, match=words):
        read_cloud(tmp_path / "a.bin", layout)


def test_float64_is_not_read_as_float32(tmp_path):
    rows(5).tofile(tmp_path / "a.bin")
    with pytest.raises(
        UserError, match=r"numbers are beyond 100000 or nearer .* float64\?.*float64:"
    ):
        read_cloud(tmp_path / "a.bin", "ntu_radar")
    cloud = read_cloud(tmp_path / "a.bin", "float64:x,y,z,rcs,v_r")
    np.testing.assert_array_equal(cloud.points, rows(5)[:, :3].astype("f4"))
    np.testing.assert_array_equal(cloud.doppler, rows(5)[:, 4].astype("f4"))
    rows(5).astype("f4").tofile(tmp_path / "a.bin")
    with pytest.raises(UserError, match=r"read as 5 float64 columns"):
        read_cloud(tmp_path / "a.bin", "float64:x,y,z,rcs,v_r")


def test_columns_can_be_declared(tmp_path):
    written = rows(8).astype("f4")
    written.tofile(tmp_path / "a.bin")
    cloud = read_cloud(tmp_path / "a.bin", "x,y,z,time,RCS,vr,snr2,id")
    np.testing.assert_array_equal(cloud.points, written[:, :3])
    np.testing.assert_array_equal(cloud.intensity, written[:, 4])
    np.testing.assert_array_equal(cloud.doppler, written[:, 5])
    with pytest.raises(UserError, match="must name x, y and z, and nothing twice"):
        read_cloud(tmp_path / "a.bin", "x,y,rcs,v")


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def changed_pcd(old, new):
    def change(folder):
        write_pcd(folder / "a.pcd", dict(zip("xyz", POINTS.T, strict=True)))
        content = (folder / "a.pcd").read_bytes()
        assert old in content
        (folder / "a.pcd").write_bytes(content.replace(old, new))

    return change


def changed_ply(old, new):
    def change(folder):
        content = ply.encoded(dict(zip("xyz", POINTS.T, strict=True)))
        assert old in content
        (folder / "a.ply").write_bytes(content.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("make", "name", "text"),
    [
        (lambda folder: None, "a.bin", "no such file"),
        (write("a.bin", b"1" * 36), "a.bin", "36 bytes are no whole points of 4 float32"),
        (write("a.bin", b"1" * 18), "a.bin", "18 bytes are no whole points"),
        (write("a.npy", b"broken"), "a.npy", r"not a .npy array \(no array of NumPy's\); copy"),
        (write("a.txt", b"1 2 3 4"), "a.txt", "unknown ending"),
        (write("a.pcd", b"FIELDS x y z\n"), "a.pcd", "no DATA line"),
        (
            changed_pcd(b"DATA binary", b"DATA binary_compressed"),
            "a.pcd",
            "compressed points are damaged",
        ),
        (
            changed_pcd(b"DATA binary", b"DATA zipped"),
            "a.pcd",
            "write it as ascii, binary or binary_com",
        ),
        (write("a.ply", b"plx\nend_header\n"), "a.ply", "does not begin with 'ply'"),
        (
            changed_ply(b"vertex 20", b"vertex 21"),
            "a.ply",
            "240 bytes of points, the header says 21 of 12",
        ),
        (changed_ply(b"vertex 20", b"face 20"), "a.ply", "its first element is not 'vertex'"),
        (changed_ply(b"float x", b"list uchar int x"), "a.ply", "PLY header is wrong"),
        (
            changed_ply(b"binary_little_endian", b"ascii"),
            "a.ply",
            "its lines are not 20 points of 3",
        ),
        (changed_ply(b"float z", b"float w"), "a.ply", "field 'z' is missing"),
        (write("a.las", b"LASF"), "a.las", "cannot be read"),
        (changed_pcd(b"FIELDS x y z", b"FIELDS x y w"), "a.pcd", "field 'z' is missing"),
        (
            changed_pcd(b"POINTS 20", b"POINTS 21"),
            "a.pcd",
            "240 bytes of points, the header says 21",
        ),
        (changed_pcd(b"POINTS 20", b"POINTS many"), "a.pcd", "PCD header is wrong"),
        (changed_pcd(b"SIZE 4 4 4\n", b""), "a.pcd", "PCD header is wrong"),
        (
            changed_pcd(b"DATA binary", b"DATA ascii"),
            "a.pcd",
            "numbers, the header says 20 points of 3",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path, make, name, text):
    make(tmp_path)
    with pytest.raises(UserError, match=text) as caught:
        read_cloud(tmp_path / name, "kitti")
    assert f"{name}:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layout_of_other_columns_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 5)))
    with pytest.raises(UserError, match=r"array \(5, 5\).*'ntu_lidar' has the columns x, y, z"):
        read_cloud(tmp_path / "a.npy", "ntu_lidar")
    assert all(columns[:4] == ("x", "y", "z", "intensity") for columns in LAYOUTS.values())
