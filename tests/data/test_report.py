"""The page of a run is one whole file, shows volumes where they are, and quotes names without obeying them."""

import base64
import gzip
import io
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from ignite.engine import Engine
from PIL import Image

from bundle.data.report import VIEWER, encode, grid_around, on_grid, write_report
from bundle.errors import InputError
from bundle.handlers.report import Report
from tests.phantom import CENTRE, RADII, affine_of, brightness, scan, within, world_of

SHAPE = (40, 50, 14)
AFFINE = affine_of(SHAPE, (1.8, 1.9, 4.5), "LPS", (11, -7))
NASTY = "</script><script>document.title='owned'</script>{{ 7 * 7 }} \u00e9'\""


def decode(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The page of a run over one subject that was done and one of a nasty name that was not."""
    folder = tmp_path_factory.mktemp("run")
    out = folder / "out" / "P1"
    out.mkdir(parents=True)
    nib.save(scan(SHAPE, AFFINE), folder / "P1_t1.nii.gz")
    world = world_of(SHAPE, AFFINE)
    made = ((brightness(world) - 100) / 400 * within(world)).astype(np.float32)
    nib.save(nib.Nifti1Image(made, AFFINE), out / "P1_t2_synth.nii.gz")
    nib.save(nib.Nifti1Image(made / 8, AFFINE), out / "P1_t2_uncertainty.nii.gz")
    Image.new("RGB", (60, 40), (200, 30, 90)).save(out / "P1_qc.png")
    report = {
        "inputs": {"t1": str(folder / "P1_t1.nii.gz")},
        "targets": ["t2"],
        "input_intensities": {"t1": {"low": 100, "high": 500}},
        "files": ["P1_t2_synth.nii.gz", "P1_t2_uncertainty.nii.gz", "P1_qc.png"],
        "mode": "mean",
        "num_samples": 2,
        "seed": 5,
        "weights_sha256": "0123456789abcdef",
        "warnings": [],
    }
    (out / "P1.json").write_text(json.dumps(report), encoding="utf-8")
    rest = {"made": [], "seconds": 0.1, "warnings": []}
    records = [
        {"subject": "P1", "status": "done", "made": ["t2"], "seconds": 2.5, "reason": "", "warnings": ["beware"]},
        {"subject": NASTY, "status": "failed", **rest, "reason": f"/data/{NASTY}_t1.nii.gz: is truncated"},
        {"subject": "P3", "status": "nothing missing", **rest, "reason": ""},
    ]
    path = folder / "out" / "report.html"
    write_report(path, records)
    return path, records


def test_one_file_that_fetches_nothing(run):
    path, _ = run
    page = path.read_text("utf-8")
    assert sorted(file.name for file in path.parent.iterdir()) == ["P1", "report.html"]
    ours = page.replace((VIEWER / "niivue.min.js").read_text("utf-8"), "")
    assert len(page) - len(ours) > 500_000 and "http://" not in ours and "https://" not in ours
    assert 'src="' not in ours.replace('src="data:image/png;base64,', "") and "default-src 'none'" in ours
    for text in ("beware", "nothing missing", "is truncated", "0123456789ab"):
        assert text in ours


def test_names_are_quoted(run):
    path, _ = run
    page = path.read_text("utf-8")
    assert "<script>document.title" not in page and "&lt;script&gt;document.title" in page
    assert "{{ 7 * 7 }}" in page


def test_volumes_lie_where_the_scans_do(run):
    path, _ = run
    page = path.read_text("utf-8")
    pieces = [piece.split("</script>")[0] for piece in page.split('<script type="text/plain" id="')[1:]]
    volumes = {name: decode(text) for name, text in (piece.split('">') for piece in pieces)}
    assert list(volumes) == ["v0-0", "v0-1", "u0-1"]
    given, made, deviation = (volume.get_fdata() for volume in volumes.values())
    affine = volumes["v0-0"].affine
    assert given.shape == made.shape and np.array_equal(affine[:3, :3], 1.5 * np.eye(3))
    world = world_of(given.shape, affine)
    inner = within(world, 0.8)
    truth = ((brightness(world) - 100) / 400)[inner]
    # linear interpolation across slices 4.5 mm apart of a wave of 56 mm, and 256 steps
    for volume in (given[inner], made[inner], 8 * deviation[inner]):
        assert np.abs(volume - truth).mean() < 0.01 and np.abs(volume - truth).max() < 0.05
    mask = made > 0.02
    assert np.allclose(world[mask].mean(0), CENTRE, atol=1)
    size = np.array(made.shape) * 1.5
    assert (size > 2 * RADII + 8).all() and (size < 2 * RADII + 32).all()  # cropped to the brain, with a margin


def test_grid_of_an_empty_volume_is_all_of_it(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.diag([3, 3, 3, 1.0])), tmp_path / "empty.nii")
    shape, affine = grid_around(tmp_path / "empty.nii")
    assert np.allclose(affine[:3, 3], -6) and shape == (15, 17, 19)


def test_steps_of_an_encoded_volume():
    values = np.linspace(-0.1, 0.5, 1000, dtype=np.float32).reshape(10, 10, 10)
    again = decode(encode(values, np.eye(4), 0.25)).get_fdata()
    assert np.abs(again - values.clip(0, 0.25)).max() < 0.25 / 255 / 2 + 1e-6
    assert encode(values, np.eye(4), 0.25) == encode(values, np.eye(4), 0.25)


def test_what_is_not_a_number_is_black(tmp_path):
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), np.eye(4)), tmp_path / "nan.nii")
    assert (on_grid(tmp_path / "nan.nii", ((4, 4, 4), np.eye(4))) == 0).all()


def test_results_that_are_gone_are_told(run, tmp_path):
    path, records = run
    shutil.copytree(path.parent / "P1", tmp_path / "P1")
    report = json.loads((tmp_path / "P1" / "P1.json").read_text("utf-8"))
    report["inputs"]["t1"] = str(tmp_path / "moved & gone.nii.gz")
    (tmp_path / "P1" / "P1.json").write_text(json.dumps(report), encoding="utf-8")
    write_report(tmp_path / "report.html", records[:1])
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "moved &amp; gone.nii.gz" in page and '<script type="text/plain"' not in page
    assert "data:image/png" in page


def test_handler_writes_once_all_is_done(run, tmp_path):
    _, records = run
    for write, files in ((True, ["report.html"]), ("False", [])):
        engine = Engine(lambda engine, _: engine.records.append(records[2]))
        engine.records = []
        folder = tmp_path / str(write)
        folder.mkdir()
        Report(folder, write).attach(engine)
        engine.run([0, 1])
        assert [file.name for file in folder.iterdir()] == files
    assert (tmp_path / "True" / "report.html").read_text("utf-8").count("<td>P3</td>") == 2
    with pytest.raises(InputError, match="report is 'perhaps'"):
        Report(tmp_path, "perhaps")


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # WebGL in software; no sandbox: as root, as in a container, Chromium has none
    for argument in ("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"):
        options.add_argument(argument)
    options.add_argument("--window-size=1200,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    session.command_executor.client_config.timeout = 300  # seconds: WebGL in software is slow on a busy machine
    session.set_page_load_timeout(240)
    yield session
    session.quit()


def test_in_a_browser(run, browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    path, _ = run
    browser.get(path.as_uri())
    WebDriverWait(browser, 240).until(lambda b: b.execute_script("return document.body.dataset.shown") == "P1")
    titles = [caption.text for caption in browser.find_elements(By.CSS_SELECTOR, "figcaption b")]
    assert titles == ["T1 \u00b7 GIVEN", "T2 \u00b7 SYNTHETIC"]
    assert browser.title == "Synthesised MRI contrasts"  # the nasty name did nothing

    canvases = browser.find_elements(By.TAG_NAME, "canvas")
    before = [picture(canvas) for canvas in canvases]
    for shown in before:  # a third of the panel at least is brain: grey, no shade of the crosshair's blue
        grey = (np.ptp(shown, axis=-1) < 12) & (shown.mean(-1) > 40)
        assert 0.25 < grey.mean() < 0.8

    values = "return [...document.querySelectorAll('figcaption span')].map((span) => span.textContent)"
    middle = browser.execute_script(values)
    axial = canvases[0].rect["width"] * 2 // 7
    actions = ActionChains(browser)
    actions.move_to_element_with_offset(canvases[0], -int(axial), 20).click().perform()
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(values)[1] != middle[1])  # the other panel follows
    given, made = browser.execute_script(values)
    number, deviation = map(float, made.split(" \u00b1 "))
    assert abs(float(given) - number) < 0.02 and abs(deviation - number / 8) < 0.004

    browser.execute_script("opacity = document.getElementById('opacity'); opacity.value = 1; opacity.oninput()")
    WebDriverWait(browser, 60).until(lambda b: np.ptp(picture(canvases[1]), axis=-1).mean() > 20)  # in colour
    assert np.ptp(picture(canvases[0]), axis=-1).mean() < 10
    assert [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []


def picture(element):
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")).astype(int)
