"""Every kind of file gives back the points that were written into it, and a bad one an error that names it."""

import numpy as np
import pytest

from apml_plugin.errors import CloudFileError
from apml_plugin.files import ply_pcd
from apml_plugin.files.clouds import READERS, read_clouds

CLOUD = np.random.default_rng(0).random((7, 3)).astype(np.float32).astype(np.float64)


def write(file, cloud):
    kind = file.suffix
    if kind == ".npy":
        np.save(file, cloud)
    elif kind == ".npz":
        np.savez(file, points=cloud, faces=np.zeros((2, 3)))
    elif kind in (".pcd", ".ply"):
        file.write_bytes({".pcd": ply_pcd.dump_pcd, ".ply": ply_pcd.dump_ply}[kind](cloud, ascii=False))
    elif kind in (".h5", ".hdf5"):
        h5py = pytest.importorskip("h5py")
        with h5py.File(file, "w") as archive:
            archive["data"] = cloud
    else:
        rows = [" ".join(f"{v:.9g}" for v in row) + " 255 0 0" for row in cloud]
        file.write_text("# x y z red green blue\n" + "\n".join(rows) + "\n\n")
    return file


@pytest.mark.parametrize("kind", READERS)
def test_points_come_back(kind, tmp_path):
    (found,) = read_clouds(write(tmp_path / f"cloud{kind}", CLOUD))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found.astype(np.float32), CLOUD.astype(np.float32))


def test_many_clouds_and_more_columns(tmp_path):
    many = np.random.default_rng(1).random((4, 5, 6))
    found = read_clouds(write(tmp_path / "many.npy", many))
    assert len(found) == 4
    np.testing.assert_array_equal(found[2], many[2, :, :3])


def test_commas_and_one_point(tmp_path):
    (tmp_path / "a.txt").write_text("1,2,3\n")
    assert read_clouds(tmp_path / "a.txt")[0].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.obj", b"v 1 2 3", "files of this kind are not supported"),
        ("a.npy", b"nonsense", "never unpickled"),
        ("a.ply", b"solid", "first line is not 'ply'"),
        ("a.pcd", b"", "no DATA line"),
        ("a.xyz", b"", "shape"),
        ("a.xyz", b"1 2\n3 4\n", r"shape \(2, 2\)"),
        ("a.xyz", b"1 2 three\n", "cannot be read"),
        ("a.xyz", b"1 2 nan\n", "1 points hold NaN or Inf"),
        ("a.npz", b"PK", "a.npz"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_errors_name_the_file_and_the_problem(name, content, expected, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CloudFileError, match=expected) as raised:
        read_clouds(tmp_path / name)
    assert name in str(raised.value)


def test_pickles_are_rejected_and_archives_need_a_known_name(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CloudFileError, match="never unpickled"):
        read_clouds(tmp_path / "o.npy")
    np.savez(tmp_path / "two.npz", first=CLOUD, second=CLOUD)
    with pytest.raises(CloudFileError, match="holds first, second; none is called data"):
        read_clouds(tmp_path / "two.npz")
    with pytest.raises(CloudFileError, match="No such file"):
        read_clouds(tmp_path / "absent.npy")


@pytest.mark.parametrize("shape", [(3, 64), (2, 3, 64)])
@pytest.mark.parametrize("kind", [".npy", ".npz"])
def test_swapped_axes_are_an_error(shape, kind, tmp_path):
    file = write(tmp_path / f"cloud{kind}", np.random.default_rng(2).random(shape))
    with pytest.raises(CloudFileError, match=r"3 points of 64 columns; points are rows: save \(N, 3\)"):
        read_clouds(file)


def test_three_points_with_attributes_are_read(tmp_path):
    (found,) = read_clouds(write(tmp_path / "cloud.npy", np.random.default_rng(3).random((3, 16))))
    assert found.shape == (3, 3)
