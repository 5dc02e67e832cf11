"""The benchmark's own parts: measures, results on disk, the report's place in the page."""

import hashlib

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx")

from nnvsr import bundles, measure, planes, report, store  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402


def write_bundle(folder, kind="sr"):
    """A network that repeats each sample twice in both directions."""
    value = lambda n, h, w: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1, h, w])
    sizes = helper.make_tensor("s", TensorProto.FLOAT, [4], [1.0, 1.0, 2.0, 2.0])
    node = helper.make_node(
        "Resize",
        ["x", "", "s"],
        ["y"],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    graph = helper.make_graph([node], "g", [value("x", "h", "w")], [value("y", "a", "b")], [sizes])
    content = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    folder.mkdir()
    (folder / "x2.onnx").write_bytes(content)
    (folder / "bundle.toml").write_text(
        f'[bundle]\nformat = 1\nkind = "{kind}"\nname = "t"\n'
        '[[network]]\nscale = 2\nfile = "x2.onnx"\n'
        f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        'radius = 3\nparameters = 0\nmacs_per_pixel = 0\nprecision = "float32"\n'
    )
    return folder


def test_network_crops_its_surroundings_away(tmp_path):
    pytest.importorskip("onnxruntime")
    (network,) = bundles.load(write_bundle(tmp_path / "b"))
    plane = np.random.default_rng(0).integers(0, 256, (7, 9)).astype(np.uint8)
    assert np.array_equal(network(plane), plane.repeat(2, 0).repeat(2, 1))
    assert network.id.startswith("t@")


def test_an_ensemble_is_the_mean_of_all_turns(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    (network,) = bundles.load(write_bundle(tmp_path / "b"))
    network.bundle = "quality"
    two, ensemble = bundles.ensembles([network])
    plane = np.random.default_rng(0).integers(0, 256, (7, 9)).astype(np.uint8)
    assert np.array_equal(two(plane), network(plane)) and np.array_equal(
        ensemble(plane), network(plane)
    )
    assert [report.short(n.id) for n in (network, two, ensemble)] == [
        "t",
        "t, self-ensemble=2",
        "t, self-ensemble=8",
    ]
    # A network that sees the row below: the mean sees all four neighbours, that of two turns the
    # rows on both sides.
    monkeypatch.setattr(
        bundles.Network, "_run", lambda _, x, __: np.roll(x, -1, 0).repeat(2, 0).repeat(2, 1)
    )
    point, cross = np.zeros((2, 7, 9), np.uint8)
    point[3, 4] = 200
    cross[[2, 4, 3, 3], [4, 4, 3, 5]] = 50
    assert np.array_equal(ensemble(point), cross.repeat(2, 0).repeat(2, 1))
    both = np.where([[y in (2, 4)] * 9 for y in range(7)], 2 * cross, 0).astype(np.uint8)
    assert np.array_equal(two(point), both.repeat(2, 0).repeat(2, 1))


def test_odd_pictures_are_completed_for_a_folded_network(tmp_path):
    pytest.importorskip("onnxruntime")
    value = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1, "h", "w"])
    nodes = [
        helper.make_node("SpaceToDepth", ["x"], ["s"], blocksize=2),
        helper.make_node("DepthToSpace", ["s"], ["y"], blocksize=2),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [value("x")], [value("y")]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = tmp_path / "x1.onnx"
    path.write_bytes(model.SerializeToString())
    network = bundles.Network("t", 1, path, "t@0", 4, 2, 0, 0, "float32", {})
    plane = np.random.default_rng(0).integers(0, 256, (7, 9)).astype(np.uint8)
    assert np.array_equal(network(plane), plane)
    fine = plane * np.float32(0.75)
    assert np.array_equal(network(fine, bits=10), fine) and np.array_equal(
        network(fine), np.rint(fine)
    )


def test_changed_file_and_other_kind_are_refused(tmp_path):
    folder = write_bundle(tmp_path / "b")
    (folder / "x2.onnx").write_bytes(b"other")
    with pytest.raises(SystemExit, match="not the file"):
        bundles.load(folder)
    with pytest.raises(SystemExit, match="kind codec"):
        bundles.load(write_bundle(tmp_path / "c", "codec"))


def test_compare_leaves_the_border_out():
    wanted = np.random.default_rng(0).integers(16, 236, (40, 50)).astype(np.uint8)
    got = wanted.copy()
    got[:2] = 0
    got[:, -2:] = 255
    assert planes.compare(wanted, got, 2) == (100.0, pytest.approx(1.0))
    got[20, 20] ^= 16
    assert planes.compare(wanted, got, 2)[0] == pytest.approx(10 * np.log10(255**2 * 36 * 46 / 256))


def test_resize_keeps_flat_pictures_and_ramps():
    assert (planes.resize(np.full((8, 8), 77, np.uint8), 4, 16) == 77).all()
    ramp = np.tile(np.arange(0, 200, 4, dtype=np.uint8), (10, 1))
    assert np.abs(np.diff(planes.resize(ramp, 10, 100)[5].astype(int))[10:-10] - 2).max() <= 1


def test_table_finds_rows_again_and_reports_broken_ones(tmp_path):
    path = tmp_path / "clips.csv"
    row = store.Clip("c", 4, 23, 2, "bicubic", 10.5, 30.25, 0.9, None, None)
    store.Table(path, store.Clip).add(row)
    table = store.Table(path, store.Clip)
    assert ("c", 4, 23, 2, "bicubic") in table and table.select(crf=23) == [row]
    path.write_text(path.read_text() + "c,4,x\n")
    with pytest.raises(SystemExit, match="cannot be read"):
        store.Table(path, store.Clip)


def test_section_takes_its_place_and_leaves_the_rest():
    page = "# Results\n\nabove\n" + f"\n{report.BEGIN}\nold\n{report.END}\n\nbelow\n"
    assert (
        report.insert(page, "new")
        == f"# Results\n\nabove\n\n{report.BEGIN}\nnew\n{report.END}\n\nbelow\n"
    )
    assert (
        report.insert("# Results\n", "new") == f"# Results\n\n{report.BEGIN}\nnew\n{report.END}\n"
    )


def test_ten_bits_are_quarters_of_codes():
    plane = np.random.default_rng(0).integers(16, 236, (20, 24)).astype(np.uint8)
    coarse, fine = (planes.resize(plane, 10, 12, bits=bits) for bits in (8, 10))
    assert (
        coarse.dtype == np.uint8
        and (fine * 4 == np.rint(fine * 4)).all()
        and (fine != np.rint(fine)).any()
    )
    assert np.abs(fine - coarse).max() <= 0.625
    assert planes.rounded(np.array([-1.0, 300.0]), 10).tolist() == [0.0, 255.75]


def test_luma_of_ten_bits_rounds_to_that_of_eight(tmp_path):
    path = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(
        path
    )
    coarse, fine = planes.read_luma(path), planes.read_luma(path, 10)
    assert (
        coarse.dtype == np.uint8 and (fine != coarse).any() and np.abs(fine - coarse).max() <= 0.625
    )


def test_colours_are_moved_by_what_changes_in_luma(tmp_path):
    pytest.importorskip("onnxruntime")
    (network,) = bundles.load(write_bundle(tmp_path / "b"))
    rgb = np.random.default_rng(0).integers(40, 216, (12, 10, 3)).astype(np.uint8)
    got, plain = network.colour(rgb), planes.resize_rgb(rgb, 24, 20, bits=0)
    # Luma is the network's, which repeats each sample; differences of colours are the kernel's.
    assert np.abs(planes.luma(got) - planes.luma(rgb).repeat(2, 0).repeat(2, 1)).max() <= 0.5
    assert np.abs((got - plain) - (got - plain).mean(-1, keepdims=True)).max() <= 1


def test_what_is_missed_is_said_of_each_kind_of_pictures(tmp_path):
    (network,) = bundles.load(write_bundle(tmp_path / "b"))
    network.bundle = "quality"
    pictures = store.Table(tmp_path / "p.csv", store.Picture)
    for bits, psnr in zip(measure.BITS, (37.0, 38.0, 38.0, 37.5)):
        pictures.add(store.Picture("set5", "a", 2, *bits, network.id, psnr, 0.9))
    empty = store.Table(tmp_path / "c.csv", store.Clip)
    lines = [
        line
        for line in report.missed({"pictures": pictures, "clips": empty}, [network])
        if "set5" in line
    ]
    assert ["8 bits throughout: 37.00 dB" in line for line in lines] == [
        True,
        False,
    ] and "RGB of 24 bits: 37.50 dB, 0.30 below" in lines[1]
