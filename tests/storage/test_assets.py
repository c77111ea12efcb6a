"""Data and weights are looked for in known places, and what is missing says all of them."""

import hashlib
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ldmctl.errors import DataError, MissingError
from ldmctl.storage import assets

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Every place that is looked at lies below tmp_path, and nothing is there."""
    monkeypatch.setenv("LDMCTL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("LDMCTL_WEIGHTS_DIR", "LDMCTL_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def server():
    """A web server on this machine: /short breaks off, /none is not there, all else is CONTENT."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if self.path == "/none" else 200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:10] if self.path == "/short" else CONTENT)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_data_is_found_below_the_root_before_the_current_folder(places):
    (places / "here" / "birds").mkdir()
    assert assets.find_data("birds") == Path("birds")
    (places / "data" / "birds").mkdir(parents=True)
    assert assets.find_data(["bees", "birds"]) == places / "data" / "birds"
    assert assets.find_data(str(places / "here")) == places / "here"


def test_the_home_folder_may_be_written_short(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places))
    assert assets.find_data("~/here") == places / "here"


def test_the_data_root_is_data_by_default(monkeypatch):
    monkeypatch.delenv("LDMCTL_DATA")
    assert assets.data_root() == Path("data")


def test_missing_data_names_every_path_and_how_to_get_it(places):
    with pytest.raises(DataError) as caught:
        assets.find_data(["birds/raw", "/nowhere/birds"], source="ask the birds", layout="one file per bird")
    words = str(caught.value)
    for expected in (places / "data/birds/raw", places / "here/birds/raw", "/nowhere/birds", "ask the birds", "one file per bird"):
        assert str(expected) in words
    assert caught.value.exit_code == 3


def test_weights_are_looked_for_in_order(places, monkeypatch):
    hub, own, given = places / "torch/hub/checkpoints", places / "own", places / "given"
    for folder in (hub, own, given):
        folder.mkdir(parents=True)
        (folder / "net.pth").write_bytes(CONTENT)
    assert assets.find_weights("net.pth") == hub / "net.pth"
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(own))
    assert assets.find_weights("net.pth") == own / "net.pth"
    assert assets.find_weights("net.pth", given=given) == given / "net.pth"
    assert assets.find_weights("net.pth", given=given / "net.pth") == given / "net.pth"


def test_the_hub_folder_is_the_one_torch_uses(monkeypatch, places):
    import torch

    monkeypatch.delenv("TORCH_HOME")
    for cache in (str(places / "cache"), None):
        monkeypatch.setenv("XDG_CACHE_HOME", cache) if cache else monkeypatch.delenv("XDG_CACHE_HOME")
        assert assets.hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_weights_that_the_config_names_are_not_replaced_by_others(places):
    (places / "torch/hub/checkpoints").mkdir(parents=True)
    (places / "torch/hub/checkpoints/net.pth").write_bytes(CONTENT)
    with pytest.raises(MissingError, match="nothing else is taken"):
        assets.find_weights("net.pth", given=places / "mine.pth")


def test_missing_weights_are_fetched_once_and_checked(server, places):
    path = assets.find_weights("net.pth", url=f"{server}/net.pth", sha256=DIGEST[:8])
    assert path == places / "torch/hub/checkpoints/net.pth" and path.read_bytes() == CONTENT
    assert assets.find_weights("net.pth", url=f"{server}/none") == path


@pytest.mark.parametrize(
    ("page", "sha256", "words"), [("net.pth", "00000000", "SHA-256"), ("short", DIGEST, "10 of 7,000 bytes"), ("none", DIGEST, "404")]
)
def test_a_failed_download_leaves_nothing_and_says_the_ways_out(server, places, page, sha256, words):
    with pytest.raises(MissingError, match=words) as caught:
        assets.find_weights("net.pth", url=f"{server}/{page}", sha256=sha256)
    for expected in (f"{server}/{page}", str(places / "torch/hub/checkpoints/net.pth"), "LDMCTL_WEIGHTS_DIR", "config"):
        assert expected in str(caught.value)
    assert caught.value.exit_code == 4
    assert list((places / "torch/hub/checkpoints").iterdir()) == []


def test_a_server_that_is_not_there_is_an_error_of_four(places):
    with pytest.raises(MissingError, match="The download failed"):
        assets.find_weights("net.pth", url="http://127.0.0.1:9/net.pth")


def test_downloads_are_refused_offline(server, monkeypatch, places):
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    with pytest.raises(MissingError, match="switched off"):
        assets.find_weights("net.pth", url=f"{server}/net.pth")
    assert not (places / "torch").exists()
    monkeypatch.setenv("LDMCTL_OFFLINE", "0")
    assert assets.find_weights("net.pth", url=f"{server}/net.pth").is_file()


def test_the_report_lists_what_is_there(places):
    def found() -> dict[str, Path | None]:
        return {item.name: path for item, path in assets.weights_report()}

    assert found()["vgg16-397923af.pth"] is None
    (places / "torch/hub/checkpoints").mkdir(parents=True)
    (places / "torch/hub/checkpoints/vgg16-397923af.pth").touch()
    assert found()["vgg16-397923af.pth"] == places / "torch/hub/checkpoints/vgg16-397923af.pth"


def test_weights_are_found_under_their_other_name(places, monkeypatch):
    other = places / "own" / "squeezenet1_0-imagenet.safetensors"
    other.parent.mkdir()
    other.write_bytes(CONTENT)
    assert assets.find_weights("squeezenet1_0-b66bff10.pth", given=other.parent) == other
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(other.parent))
    assert assets.find_weights("squeezenet1_0-b66bff10.pth") == other
    (places / "own/squeezenet1_0-b66bff10.pth").write_bytes(CONTENT)
    assert assets.find_weights("squeezenet1_0-b66bff10.pth") == places / "own/squeezenet1_0-b66bff10.pth"


def test_what_is_missing_names_the_other_name_too(places, monkeypatch):
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    with pytest.raises(MissingError, match=r"squeezenet1_0-imagenet\.safetensors"):
        assets.find_weights("squeezenet1_0-b66bff10.pth")


def test_the_name_of_every_file_begins_its_checksum():
    assert len(assets.WEIGHTS) >= 2
    for item in assets.WEIGHTS:
        assert f"-{item.sha256}." in item.name and item.url.endswith(item.name) and len(item.sha256) == 8


def test_the_heads_of_lpips_lie_in_torchmetrics():
    pytest.importorskip("torchmetrics")
    assert assets.lpips_heads().is_file()


def test_looking_for_things_and_listing_datasets_needs_no_torch():
    modules = "ldmctl.storage.assets, ldmctl_plugins.datasets.folder, ldmctl_plugins.datasets.idx, ldmctl_plugins.datasets.shapes"
    script = f"import sys, {modules}; sys.exit(any(name in sys.modules for name in ('torch', 'torchvision')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
