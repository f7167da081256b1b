from __future__ import annotations

import hashlib
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.architectures.catalog import get_architecture
from models.architectures.garment_classifier import GarmentClassifier
from models.errors import (
    CorruptVersion,
    InvalidName,
    ModelsError,
    UnknownAlias,
    UnknownModel,
    UnknownVersion,
    UnsafeWeights,
    VersionInUse,
)
from models.manifest import ManifestDraft
from models.store.registry import MANIFEST_FILE, ModelVersion, Registry
from models.store.temporary_directories import temporary_directory
from tests import children
from tests.waiting import PATIENCE_S

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", reserved_names=("resnet18", "garment_classifier"))


def draft(job_id: str | None = None) -> ManifestDraft:
    return ManifestDraft(
        architecture="garment_classifier",
        categories=("ant", "bee"),
        preset=get_architecture("garment_classifier").preset,
        job_id=job_id,
    )


def weights() -> dict[str, Tensor]:
    return GarmentClassifier(2).state_dict()


def publish(registry: Registry, name: str = "ants-bees", *, job_id: str | None = None) -> ModelVersion:
    return registry.publish(name, weights(), draft(job_id), now=NOW)


def test_nothing_published_lists_nothing(registry: Registry) -> None:
    assert registry.names() == []


def test_first_version_is_one_and_says_what_it_is(registry: Registry) -> None:
    manifest = publish(registry).manifest

    assert (manifest.name, manifest.version, manifest.reference) == ("ants-bees", 1, "ants-bees/1")
    assert manifest.created_at == NOW
    assert manifest.categories == ("ant", "bee")
    assert manifest.parameters == sum(parameter.numel() for parameter in GarmentClassifier(2).parameters())


def test_manifest_has_size_and_digest_of_the_file(registry: Registry) -> None:
    version = publish(registry)
    content = version.state_dict_path.read_bytes()

    assert version.manifest.size_bytes == len(content)
    assert version.manifest.sha256 == hashlib.sha256(content).hexdigest()


def test_published_tensors_come_back_to_the_bit(registry: Registry) -> None:
    wanted = weights()
    version = registry.publish("ants-bees", wanted, draft(), now=NOW)

    got = registry.state_dict(version)

    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_wrappers_prefixes_are_stripped(registry: Registry) -> None:
    wrapped = {f"module._orig_mod.{key}": tensor for key, tensor in weights().items()}

    version = registry.publish("ants-bees", wrapped, draft(), now=NOW)

    assert registry.state_dict(version).keys() == weights().keys()


def test_auxiliary_heads_are_left_away(registry: Registry) -> None:
    said = draft().model_copy(update={"architecture": "googlenet"})

    version = registry.publish("ants-bees", {"fc.bias": torch.ones(2), "aux1.fc2.bias": torch.ones(2)}, said, now=NOW)

    assert registry.state_dict(version).keys() == {"fc.bias"}


def test_tensors_that_share_memory_are_published(registry: Registry) -> None:
    shared = torch.arange(6.0)

    version = registry.publish("ants-bees", {"one": shared, "other": shared[:3]}, draft(), now=NOW)

    assert registry.state_dict(version)["other"].tolist() == [0, 1, 2]


def test_next_version_is_the_next_number(registry: Registry) -> None:
    publish(registry)

    assert publish(registry).manifest.version == 2
    assert registry.versions("ants-bees") == [1, 2]
    assert registry.names() == ["ants-bees"]


def test_file_is_published_as_it_is(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_file(weights(), path)

    version = registry.publish_file("ants-bees", path, draft(), now=NOW)

    assert version.state_dict_path.read_bytes() == path.read_bytes()
    assert path.exists()


def test_report_is_published_with_the_version(registry: Registry, tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / "confusion.csv").write_text("1,2")

    version = registry.publish("ants-bees", weights(), draft(), now=NOW, report_dir=report)

    assert (version.report_dir / "confusion.csv").read_text() == "1,2"


def test_absent_report_is_no_error(registry: Registry, tmp_path: Path) -> None:
    version = registry.publish("ants-bees", weights(), draft(), now=NOW, report_dir=tmp_path / "none")

    assert not version.report_dir.exists()


def test_same_job_publishes_once(registry: Registry) -> None:
    first = publish(registry, job_id="job-1")

    assert publish(registry, job_id="job-1") == first
    assert registry.versions("ants-bees") == [1]


def test_another_job_publishes_another_version(registry: Registry) -> None:
    publish(registry, job_id="job-1")

    assert publish(registry, job_id="job-2").manifest.version == 2


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_file_that_is_no_safetensors_is_refused_and_leaves_nothing(
    registry: Registry, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)

    with pytest.raises(UnsafeWeights):
        registry.publish_file("ants-bees", path, draft(), now=NOW)

    assert registry.names() == []
    assert not list((tmp_path / "registry").glob(".tmp-*"))


def test_file_that_ends_early_is_refused(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    save_file(weights(), path)
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(UnsafeWeights, match="incomplete"):
        registry.publish_file("ants-bees", path, draft(), now=NOW)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a..b", ".a", "a\0b", "a" * 300, "ämse", "a b", "-a", "a@b"])
def test_impossible_name_is_refused(registry: Registry, name: str) -> None:
    for act in (
        lambda: registry.versions(name),
        lambda: registry.get(name, 1),
        lambda: registry.set_alias(name, "x", 1),
        lambda: registry.delete(name, 1),
        lambda: publish(registry, name),
    ):
        with pytest.raises(InvalidName):
            act()


@pytest.mark.parametrize("name", ["resnet18", "resnet18.mine", "garment_classifier"])
def test_name_of_an_architecture_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidName, match="is an architecture"):
        publish(registry, name)


def test_name_that_begins_like_an_architecture_is_taken(registry: Registry) -> None:
    assert publish(registry, "resnet18-ants").manifest.name == "resnet18-ants"


def test_unknown_model_names_near_ones(registry: Registry) -> None:
    publish(registry)

    with pytest.raises(UnknownModel) as raised:
        registry.get("ants-beez", 1)

    assert "ants-bees" in (raised.value.hint or "")


def test_unknown_version_lists_the_known(registry: Registry) -> None:
    publish(registry)
    publish(registry)

    with pytest.raises(UnknownVersion) as raised:
        registry.get("ants-bees", 7)

    assert "1, 2" in (raised.value.hint or "")


def test_unknown_alias_lists_the_known(registry: Registry) -> None:
    publish(registry)
    registry.set_alias("ants-bees", "staging", 1)

    with pytest.raises(UnknownAlias) as raised:
        registry.resolve("ants-bees@live")

    assert "ants-bees@staging" in (raised.value.hint or "")


def test_name_alone_means_production(registry: Registry) -> None:
    publish(registry)
    publish(registry)
    registry.set_alias("ants-bees", "production", 1)

    assert registry.resolve("ants-bees").manifest.version == 1


def test_name_alone_means_the_newest_without_production(registry: Registry) -> None:
    for _ in range(11):
        publish(registry)
    registry.set_alias("ants-bees", "staging", 1)

    assert registry.resolve("ants-bees").manifest.version == 11


def test_reference_with_alias_or_version_means_that(registry: Registry) -> None:
    publish(registry)
    publish(registry)
    registry.set_alias("ants-bees", "staging", 1)

    assert registry.resolve("ants-bees@staging").manifest.version == 1
    assert registry.resolve("ants-bees/2").manifest.version == 2


MALFORMED = (
    *("", "/", "@", "ants-bees/", "ants-bees/x", "ants-bees/0", "ants-bees/-1", "ants-bees/1/2", "ants-bees@a@b"),
    *("ants-bees/" + "9" * 5000, "../x/1", "ants-bees@../../x", "ants-bees/1@a", "ants-bees@a\0b", "ants-bees/\uff11"),
)


@pytest.mark.parametrize("reference", MALFORMED)
def test_malformed_reference_is_refused(registry: Registry, reference: str) -> None:
    publish(registry)

    with pytest.raises(InvalidName):
        registry.resolve(reference)


def test_moving_an_alias_says_where_it_was(registry: Registry) -> None:
    publish(registry)
    publish(registry)

    assert registry.set_alias("ants-bees", "production", 1) is None
    assert registry.set_alias("ants-bees", "production", 2) == 1
    assert registry.aliases("ants-bees") == {"production": 2}


def test_alias_to_an_absent_version_is_refused(registry: Registry) -> None:
    publish(registry)

    with pytest.raises(UnknownVersion):
        registry.set_alias("ants-bees", "production", 2)

    assert registry.aliases("ants-bees") == {}


@pytest.mark.parametrize("alias", ["", "..", "a/b", "a b", "x" * 100, "a\0"])
def test_impossible_alias_is_refused(registry: Registry, alias: str) -> None:
    publish(registry)

    with pytest.raises(InvalidName):
        registry.set_alias("ants-bees", alias, 1)


def test_deleted_alias_is_gone_and_its_version_stays(registry: Registry) -> None:
    publish(registry)
    registry.set_alias("ants-bees", "production", 1)

    registry.delete_alias("ants-bees", "production")

    assert registry.aliases("ants-bees") == {}
    assert registry.versions("ants-bees") == [1]


def test_deleting_an_unknown_alias_is_refused(registry: Registry) -> None:
    publish(registry)

    with pytest.raises(UnknownAlias):
        registry.delete_alias("ants-bees", "production")


def test_deleted_version_frees_the_disk(registry: Registry, tmp_path: Path) -> None:
    publish(registry)
    path = publish(registry).path

    registry.delete("ants-bees", 2)

    assert not path.exists()
    assert registry.versions("ants-bees") == [1]
    assert not list((tmp_path / "registry").glob(".tmp-*"))


def test_version_with_an_alias_is_not_deleted(registry: Registry) -> None:
    publish(registry)
    registry.set_alias("ants-bees", "production", 1)

    with pytest.raises(VersionInUse, match="ants-bees@production"):
        registry.delete("ants-bees", 1)

    assert registry.versions("ants-bees") == [1]


def test_deleting_an_unknown_version_is_refused(registry: Registry) -> None:
    publish(registry)

    with pytest.raises(UnknownVersion):
        registry.delete("ants-bees", 2)


def test_deleting_the_last_version_removes_the_model(registry: Registry, tmp_path: Path) -> None:
    publish(registry)
    registry.set_alias("ants-bees", "production", 1)
    registry.delete_alias("ants-bees", "production")

    registry.delete("ants-bees", 1)

    assert registry.names() == []
    assert not (tmp_path / "registry" / "ants-bees").exists()


def test_number_of_a_deleted_version_is_not_given_again(registry: Registry) -> None:
    publish(registry)
    publish(registry)
    registry.delete("ants-bees", 2)
    assert publish(registry).manifest.version == 3

    registry.delete("ants-bees", 1)
    registry.delete("ants-bees", 3)

    assert publish(registry).manifest.version == 4


def test_changed_weights_are_corrupt(registry: Registry) -> None:
    version = publish(registry)
    content = bytearray(version.state_dict_path.read_bytes())
    content[-1] ^= 1
    version.state_dict_path.write_bytes(content)

    with pytest.raises(CorruptVersion, match="ants-bees/1"):
        registry.state_dict(version)


def test_shortened_weights_are_corrupt_even_unverified(registry: Registry) -> None:
    version = publish(registry)
    version.state_dict_path.write_bytes(version.state_dict_path.read_bytes()[:100])

    with pytest.raises(CorruptVersion):
        registry.state_dict(version, verify=False)


def test_absent_weights_are_corrupt(registry: Registry) -> None:
    version = publish(registry)
    version.state_dict_path.unlink()

    with pytest.raises(CorruptVersion):
        registry.state_dict(version)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_damaged_manifest_is_corrupt(registry: Registry, content: str) -> None:
    version = publish(registry)
    (version.path / MANIFEST_FILE).write_text(content)

    with pytest.raises(CorruptVersion):
        registry.get("ants-bees", 1)


def test_manifest_of_another_version_is_corrupt(registry: Registry) -> None:
    version = publish(registry)
    said = json.loads((version.path / MANIFEST_FILE).read_text())
    (version.path / MANIFEST_FILE).write_text(json.dumps(said | {"version": 2}))

    with pytest.raises(CorruptVersion):
        registry.get("ants-bees", 1)


def test_damaged_alias_is_corrupt(registry: Registry) -> None:
    version = publish(registry)
    registry.set_alias("ants-bees", "production", 1)
    (version.path.parent / "aliases" / "production").write_text("one")

    with pytest.raises(CorruptVersion):
        registry.resolve("ants-bees")
    assert registry.resolve("ants-bees/1").manifest.version == 1  # which needs no alias


def test_leftovers_are_neither_models_nor_versions(registry: Registry, tmp_path: Path) -> None:
    publish(registry)
    root = tmp_path / "registry"
    (root / ".tmp-dead" / "x").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "half" / "1").mkdir(parents=True)
    (root / "ants-bees" / "9").mkdir()
    (root / "stray file").write_text("")

    assert registry.names() == ["ants-bees"]
    assert registry.versions("ants-bees") == [1]
    assert publish(registry).manifest.version == 10


def test_leftovers_of_a_writer_that_died_are_removed(registry: Registry, tmp_path: Path) -> None:
    publish(registry)
    with temporary_directory(tmp_path / "registry") as being_written:
        (tmp_path / "registry" / ".tmp-dead").mkdir()

        assert registry.remove_leftovers() == 1
        assert list((tmp_path / "registry").glob(".tmp-*")) == [being_written]
    assert registry.names() == ["ants-bees"]


def test_full_disk_leaves_nothing_behind(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(source: Path, target: Path) -> None:
        target.write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    publish(registry)
    monkeypatch.setattr("models.store.registry.shutil.copyfile", no_space)

    with pytest.raises(OSError, match="No space"):
        registry.publish_file("ants-bees", tmp_path / "x", draft(), now=NOW)

    assert registry.versions("ants-bees") == [1]
    assert not list((tmp_path / "registry").glob(".tmp-*"))


def test_threads_that_publish_at_once_never_collide(registry: Registry) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: publish(registry).manifest.version, range(24)))

    assert sorted(versions) == list(range(1, 25))
    assert registry.versions("ants-bees") == sorted(versions)


def test_threads_that_publish_one_job_publish_once(registry: Registry) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: publish(registry, job_id="job-1").manifest.version, range(8)))

    assert versions == [1] * 8
    assert registry.versions("ants-bees") == [1]


PUBLISHER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from models.manifest import ManifestDraft
from models.store.registry import Registry
root, weights, manifest = map(Path, sys.argv[1:])
draft = ManifestDraft.model_validate_json(manifest.read_bytes())
for _ in range(5):
    print(Registry(root).publish_file("ants-bees", weights, draft, now=datetime.now(UTC)).manifest.version)
assert "torch" not in sys.modules
"""


def test_processes_that_publish_at_once_never_collide_and_need_no_torch(registry: Registry, tmp_path: Path) -> None:
    path, manifest = tmp_path / "best.safetensors", tmp_path / "draft.json"
    save_file(weights(), path)
    manifest.write_text(draft().model_dump_json())
    command = [sys.executable, "-c", PUBLISHER, str(tmp_path / "registry"), str(path), str(manifest)]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: children.run(command).stdout, range(4)))

    assert sorted(int(line) for answer in answers for line in answer.split()) == list(range(1, 21))


def test_alias_never_outlives_its_version(registry: Registry) -> None:
    for _ in range(6):
        publish(registry)
    start = threading.Barrier(2)

    def promote(version: int) -> None:
        start.wait(PATIENCE_S)
        try:
            registry.set_alias("ants-bees", "production", version)
        except UnknownVersion:
            return

    def delete(version: int) -> None:
        start.wait(PATIENCE_S)
        try:
            registry.delete("ants-bees", version)
        except VersionInUse:
            return

    for version in range(1, 6):
        with ThreadPoolExecutor(2) as pool:
            for done in (pool.submit(promote, version), pool.submit(delete, version)):
                done.result()
        assert set(registry.aliases("ants-bees").values()) <= set(registry.versions("ants-bees"))
        registry.set_alias("ants-bees", "production", 6)


def test_readers_never_see_half_a_version(registry: Registry) -> None:
    publish(registry)
    done = threading.Event()

    def read() -> int:
        seen = 0
        while not done.is_set():
            version = registry.resolve("ants-bees")
            assert version.state_dict_path.stat().st_size == version.manifest.size_bytes
            seen = max(seen, version.manifest.version)
        return seen

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for _ in range(10):
            publish(registry)
        done.set()
        assert reader.result() >= 1


def test_every_error_has_words_and_a_way_out(registry: Registry) -> None:
    publish(registry)

    for reference in ("nobody", "ants-bees/9", "ants-bees@x", "a/b/c"):
        with pytest.raises(ModelsError) as raised:
            registry.resolve(reference)
        assert str(raised.value).endswith(".")
        assert raised.value.hint
