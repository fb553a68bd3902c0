"""The open3d stand-in: files there and back, files of others, distances."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from standins.serving import served

open3d = served("open3d")


def cloud(points):
    result = open3d.geometry.PointCloud()
    result.points = open3d.utility.Vector3dVector(points)
    return result


@pytest.mark.parametrize("suffix", [".pcd", ".ply"])
@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("n", [0, 1, 500])
def test_there_and_back(tmp_path, suffix, ascii, n):
    points = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    path = str(tmp_path / f"cloud{suffix}")
    assert open3d.io.write_point_cloud(path, cloud(points), write_ascii=ascii)
    back = np.array(open3d.io.read_point_cloud(path).points)
    assert type(back) is np.ndarray
    assert back.dtype == np.float64
    # Text is read as float64 even where the field says float32, so only the rounded value is the same.
    assert np.array_equal(back.astype(np.float32), points)
    assert ascii or np.array_equal(back, points)


def test_pcd_with_other_fields(tmp_path):
    header = "VERSION .7\nFIELDS rgb _ x y z n\nSIZE 4 1 4 8 4 2\nTYPE U U F F F I\nCOUNT 1 3 1 1 1 2\nWIDTH 2\n"
    header += "HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 2\n"
    rows = b"".join(struct.pack("<I3BfdfHH", 7, 1, 2, 3, i + 0.5, i - 0.25, 4 * i, 8, 9) for i in range(2))
    (tmp_path / "a.pcd").write_bytes(header.encode() + b"DATA binary\n" + rows)
    text = "".join(f"7 1 2 3 {i + 0.5} {i - 0.25} {4 * i} 8 9\n" for i in range(2))
    (tmp_path / "b.pcd").write_text("# a comment\n" + header + "DATA ascii\n" + text)
    for name in ("a.pcd", "b.pcd"):
        points = np.asarray(open3d.io.read_point_cloud(tmp_path / name).points)
        assert points.tolist() == [[0.5, -0.25, 0], [1.5, 0.75, 4]]


def test_ply_with_other_elements_and_properties(tmp_path):
    header = (
        "ply\nformat {} 1.0\ncomment made by hand\nelement camera 1\nproperty float view\nelement vertex 2\n"
        "property uchar red\nproperty float x\nproperty double y\nproperty short z\nelement face 1\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    rows = struct.pack("<f", 1.0) + b"".join(struct.pack("<Bfdh", 200, i + 0.5, i - 0.25, 4 * i) for i in range(2))
    (tmp_path / "a.ply").write_bytes(header.format("binary_little_endian").encode() + rows + b"\x03" + b"\x00" * 12)
    text = "1\n200 0.5 -0.25 0\n200 1.5 0.75 4\n3 0 0 0\n"
    (tmp_path / "b.ply").write_text(header.format("ascii") + text)
    for name in ("a.ply", "b.ply"):
        points = np.asarray(open3d.io.read_point_cloud(str(tmp_path / name)).points)
        assert points.tolist() == [[0.5, -0.25, 0], [1.5, 0.75, 4]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pcd", b"nothing", "no DATA line"),
        ("a.pcd", b"FIELDS x y\nSIZE 4 4\nTYPE F F\nPOINTS 0\nDATA ascii\n", "no field z"),
        ("a.pcd", b"FIELDS x y z\nSIZE 4 4\nTYPE F F F\nPOINTS 1\nDATA ascii\n", "damaged"),
        ("a.pcd", b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 2\nDATA binary\n" + bytes(12), "ends early"),
        ("a.pcd", b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 1\nDATA binary_compressed\n", "pip install open3d"),
        ("a.ply", b"plyish\n", "first line"),
        ("a.ply", b"ply\nformat binary_big_endian 1.0\nend_header\n", "binary_big_endian"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "no property y, z"),
        ("a.xyz", b"1 2 3\n", r"reads and writes \.pcd and \.ply"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RuntimeError, match=message) as error:
        open3d.io.read_point_cloud(str(tmp_path / name))
    assert name in str(error.value)


def test_nan_points_go_only_when_asked(tmp_path):
    points = np.array([[1, 2, 3], [np.nan, 0, 0], [np.inf, 0, 0]])
    path = str(tmp_path / "a.ply")
    open3d.io.write_point_cloud(path, cloud(points))
    assert len(open3d.io.read_point_cloud(path).points) == 3
    kept = open3d.io.read_point_cloud(path, remove_nan_points=True, remove_infinite_points=True).points
    assert kept.tolist() == [[1, 2, 3]]


def test_distance_to_another_cloud():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    want = np.sqrt(((a[:, None] - b) ** 2).sum(-1)).min(1)
    assert np.allclose(cloud(a).compute_point_cloud_distance(cloud(b)), want, rtol=1e-12)
    with pytest.raises(RuntimeError, match="no points"):
        cloud(a).compute_point_cloud_distance(cloud([]))


def test_points_are_a_copy_of_n_by_3():
    source = np.zeros((4, 3), dtype=np.float32)
    points = open3d.utility.Vector3dVector(source)
    source += 1
    assert not np.asarray(points).any()
    with pytest.raises(RuntimeError, match=r"\(4, 2\)"):
        open3d.utility.Vector3dVector(np.zeros((4, 2)))
    with pytest.raises(AttributeError, match="visualization is not in the stand-in"):
        _ = open3d.visualization


def test_moved_and_boxed():
    points = np.random.default_rng(3).random((20, 3))
    cloud = open3d.geometry.PointCloud(points)
    turn = np.array([[0, -1, 0, 2], [1, 0, 0, 0], [0, 0, 3, -1], [0, 0, 0, 2]], dtype=float)
    assert cloud.transform(turn) is cloud
    want = np.stack([(2 - points[:, 1]) / 2, points[:, 0] / 2, (3 * points[:, 2] - 1) / 2], axis=1)
    assert np.allclose(cloud.points, want, rtol=1e-14)
    box = cloud.get_axis_aligned_bounding_box()
    assert np.array_equal(box.get_min_bound(), want.min(axis=0))
    assert np.array_equal(box.get_extent(), want.max(axis=0) - want.min(axis=0))
    assert np.allclose(box.get_center(), (want.max(axis=0) + want.min(axis=0)) / 2)
    assert np.allclose(cloud.get_center(), want.mean(axis=0))
    assert not open3d.geometry.PointCloud().get_axis_aligned_bounding_box().get_extent().any()
    with pytest.raises(RuntimeError, match=r"\(4, 4\), got shape \(3, 3\)"):
        cloud.transform(np.eye(3))
