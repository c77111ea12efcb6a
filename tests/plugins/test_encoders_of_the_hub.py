"""A text encoder that the hub does not give is a sentence of our own with the ways out, and none of huggingface_hub's."""

import errno

import pytest

from ldmctl import registry
from ldmctl.errors import MissingError

hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")
httpx = pytest.importorskip("httpx")

ALIEN = ("local_files_only", "Repo id", "snapshot folder", "Got:", "Error:", "Traceback", "Client Error", "Request ID", "outgoing traffic")


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """answered(error, name) -> the sentence where nothing is stored here and a download ends so."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("LDMCTL_OFFLINE", raising=False)

    def go(error, name="someone/encoder"):
        def download(*_, local_files_only, **__):
            if local_files_only:
                raise errors.LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder, pass 'local_files_only=False'.")
            raise error

        if error is not None:
            monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        plugin = registry.load("conditioner", "text")
        with pytest.raises(MissingError) as raised:
            plugin.fit(plugin.Config(type="text", encoder=name), [])
        return str(raised.value), raised.value

    return go


def refused(kind, status):
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/models/someone/encoder"))
    return getattr(errors, kind)(f"{status} Client Error. (Request ID: Root=1)", response=response)


@pytest.mark.parametrize(
    ("error", "why", "way"),
    [
        (
            refused("GatedRepoError", 403),
            "gives it only to people who have accepted its terms",
            "accept them at https://huggingface.co/someone/encoder",
        ),
        (
            refused("RepositoryNotFoundError", 404),
            "The hub has no model of this name, or a private one.",
            "write the name as https://huggingface.co shows",
        ),
        (refused("HfHubHTTPError", 503), "The hub has answered with the status 503", "give the same command again later"),
        (errors.OfflineModeIsEnabled("Cannot reach https://huggingface.co: offline mode"), "(HF_HUB_OFFLINE)", "unset HF_HUB_OFFLINE"),
        (errors.LocalEntryNotFoundError("Got: ConnectError: [Errno -2]"), "and cannot be reached", "where there is a connection"),
        (httpx.ReadTimeout("Error: timed out"), "and cannot be reached", "where there is a connection"),
    ],
)
def test_why_it_is_not_given_is_said_with_what_to_do(answered, error, why, way):
    said, raised = answered(error)
    assert said.startswith("The text encoder someone/encoder is missing. There is no such folder. ") and why in said and way in said
    assert "Looked for:" in said and "Ways out:" in said and "take conditions.text=words" in said
    assert not [words for words in ALIEN if words in said], said
    assert raised.__cause__ is error, "-v shows it"


def test_the_nearest_of_its_causes_that_is_known_is_said(answered):
    error = errors.LocalEntryNotFoundError("Got: GatedRepoError")
    error.__cause__ = refused("GatedRepoError", 401)
    assert "accepted its terms" in answered(error)[0]


def test_a_name_that_the_hub_cannot_have_is_said(answered):
    said, _ = answered(None, "no name!")
    assert "It is no name that the hub can have." in said and "write it as the hub does" in said
    assert not [words for words in ALIEN if words in said], said


def test_a_model_without_weights_is_said(answered, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    said, _ = answered(None)
    assert "The hub has it without weights that PyTorch reads (*.safetensors, pytorch_model*.bin)." in said


def test_a_disk_without_room_is_no_encoder_that_is_missing(answered):
    with pytest.raises(OSError, match="No space left"):
        answered(OSError(errno.ENOSPC, "No space left on device"))


def test_downloads_that_are_switched_off_are_said(answered, monkeypatch):
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    said, _ = answered(None)
    assert "downloads are switched off (LDMCTL_OFFLINE or --offline)" in said and "unset LDMCTL_OFFLINE" in said
    assert not [words for words in ALIEN if words in said], said
