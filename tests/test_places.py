"""Files in an object store: found, read, written, explained; and what may not be a path at all."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from store_support import template

import deepprofile as dp
from deepprofile import places
from deepprofile.cli import main
from deepprofile.evaluation.stations import read_archive
from deepprofile.model.io import DESCRIPTION, WEIGHTS
from deepprofile.products.files import file_tags, find_files
from deepprofile.recipe import RecipeError, load_recipe
from deepprofile.store import CubeError
from deepprofile.store.repository import open_or_create, open_repository
from deepprofile.testing import object_store as servers

SECRET = "wJalr/XUtn+FEMI"
WITH_SECRETS = [
    f"s3://AKIA:{SECRET}@bucket/key",
    f"s3://AKIA:{SECRET}",
    f"https://user:{SECRET}@host/granules",
    f"https://host/granules?X-Amz-Signature={SECRET}",
    f"https://host:443/granules#{SECRET}",
]


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_a_path_with_a_secret_is_refused_and_never_repeated(url):
    assert SECRET not in places.redacted(f"before {url} after")
    for use in (places.check_url, places.find, find_files, dp.open_cube, dp.load_model):
        with pytest.raises((places.PlaceError, CubeError)) as caught:
            use(url)
        assert SECRET not in str(caught.value)
        assert "AKIA" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket/a b/c", "https://host:8080/x", "/a@b/c?d", "a/../b"])
def test_other_paths_are_taken_as_they_are(url):
    assert places.check_url(url) == url
    assert places.redacted(url) == url


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "..\\x", "C:\\x", "a\0"])
def test_a_name_cannot_lead_out_of_its_folder(name):
    with pytest.raises(places.PlaceError, match="leads out"):
        places.inside("s3://bucket/folder", name)


def _recipe(folder: Path, **changes) -> Path:
    document = yaml.safe_load(Path("pipelines/demo.yaml").read_text(encoding="utf-8"))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**document, **changes}))
    return path


@pytest.mark.parametrize("url", WITH_SECRETS)
@pytest.mark.parametrize("key", ["root", "terrain", "stations", "products", "name", "unknown"])
def test_a_recipe_with_a_secret_is_refused_and_never_repeats_it(tmp_path, key, url, capsys):
    value = {"terrain": {"urls": [url]}, "products": {"smap_l4": url}}.get(key, url)
    path = _recipe(tmp_path, **{key: value})
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    shown = str(caught.value) + repr(caught.value.__context__) * bool(caught.value.__cause__)
    assert SECRET not in shown
    assert "recipe.yaml" in shown


def test_a_recipe_cannot_climb_out_of_its_root(tmp_path):
    path = _recipe(tmp_path, terrain={"urls": ["{root}/../../dem.nc"]})
    with pytest.raises(RecipeError, match="leads out of the root"):
        load_recipe(path)


def test_another_root_can_be_given(tmp_path):
    recipe = load_recipe(_recipe(tmp_path), "s3://bucket/earth")
    assert recipe.root == "s3://bucket/earth"
    assert recipe.products["smap_l4"].url == "s3://bucket/earth/earth/smap_l4"


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda bomb, file: pickle.dump(bomb, file.open("wb"))]
)
def test_a_pickle_in_a_model_folder_is_refused_and_never_run(tmp_path, save):
    folder, mark = tmp_path / "model", tmp_path / "it was run"
    dp.save_model(dp.DeepProfile(window=40), str(folder))
    save(_Bomb(mark), folder / WEIGHTS)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        dp.load_model(str(folder))
    (folder / DESCRIPTION).write_bytes(pickle.dumps(_Bomb(mark)))
    with pytest.raises(ValueError, match="is not JSON"):
        dp.load_model(str(folder))
    assert not mark.exists()
    pickle.loads(pickle.dumps(_Bomb(mark)))
    assert mark.exists()  # the bomb would have gone off


def test_a_station_file_whose_name_leads_out_of_the_archive_is_set_aside(tmp_path):
    names = ["../DEMO_DEMO_X_sm_0.05_0.05_P_20150331_20150704.stm", "/tmp/evil_evil_X_sm_0_0_P.stm"]
    with zipfile.ZipFile(tmp_path / "stations.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "nothing")
        archive.writestr("DEMO/X/DEMO_DEMO_X_sm_0.05_0.05_P_20150331_20150704.stm", "nothing")
    records = read_archive(tmp_path / "stations.zip")
    reasons = {item.path: item.reason for item in records.rejected}
    assert all("leads out of the archive" in reasons[name] for name in names)
    assert not list(tmp_path.parent.glob("*.stm"))


def test_new_and_replaced_objects_are_seen_at_once(s3_url):
    url = f"{s3_url}/granules"
    assert find_files(url) == []
    places.write_bytes(f"{url}/2016/a.h5", b"first")
    assert find_files(url) == [f"{url}/2016/a.h5"]
    before = file_tags(url)
    places.write_bytes(f"{url}/2016/b.h5", b"another")
    places.write_bytes(f"{url}/2016/a.h5", b"other")  # of the same size
    after = file_tags(url)
    assert find_files(url) == [f"{url}/2016/a.h5", f"{url}/2016/b.h5"]
    assert before[f"{url}/2016/a.h5"] != after[f"{url}/2016/a.h5"]


def test_a_model_lies_in_an_object_store_as_on_a_disk(s3_url, tmp_path):
    model = dp.DeepProfile(window=40)
    urls = [f"{s3_url}/model", str(tmp_path / "model")]
    assert len({dp.save_model(model, url) for url in urls}) == 1
    first, second = (dp.load_model(url).state_dict() for url in urls)
    assert all(torch.equal(first[name], second[name]) for name in first)
    contents = [
        {name.rsplit("/", 1)[1]: places.read_bytes(name) for name in places.find(url)}
        for url in urls
    ]
    assert contents[0] == contents[1]


FAULTS = {
    "unreachable": "does not answer",
    "no bucket": "no such bucket|NoSuchBucket",
    "wrong secret": "AWS_SECRET_ACCESS_KEY|credentials",
    "unknown key": "AWS_ACCESS_KEY_ID|credentials",
    "no credentials": "credentials",
    "anonymous": "AccessDenied|does not let us in",
}


def _faulty(fault: str, store: servers.ObjectStore, url: str) -> tuple[dict[str, str], str]:
    """Environment and URL of a fault."""
    environment = store.environment
    without = {k: v for k, v in environment.items() if "KEY" not in k}
    changes = {
        "unreachable": {**environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        "wrong secret": {**environment, "AWS_SECRET_ACCESS_KEY": f"{servers.SECRET_KEY}x"},
        "unknown key": {**environment, "AWS_ACCESS_KEY_ID": "NOBODY"},
        "no credentials": without,
        "anonymous": {**without, "AWS_NO_SIGN_REQUEST": "YES"},
    }
    place = "s3://no-such-bucket/prefix" if fault == "no bucket" else url
    return changes.get(fault, environment), place


@pytest.fixture
def checking_store(object_store):
    """A server that checks credentials."""
    if object_store.kind != servers.SEAWEEDFS:
        pytest.skip("this server does not check credentials")
    return object_store


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_cannot_be_reached_are_explained(fault, checking_store, s3_url):
    places.write_bytes(f"{s3_url}/file", b"content")
    environment, url = _faulty(fault, checking_store, s3_url)
    with servers.active(environment):
        n = 1 if fault == "unreachable" else 2  # silence takes seconds
        for use in (find_files, lambda url: places.write_bytes(f"{url}/file", b"changed"))[:n]:
            with pytest.raises(OSError, match=FAULTS[fault] + "|bucket") as caught:
                use(url)
            assert servers.SECRET_KEY not in str(caught.value)
        for make in (open_repository, lambda url: open_or_create(f"{url}/cube", template()))[:n]:
            with pytest.raises(CubeError, match=rf"^s3://.*can't be reached: .*({FAULTS[fault]})"):
                make(url)
    assert places.read_bytes(f"{s3_url}/file") == b"content"


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "unreachable"])
def test_a_cube_that_cannot_be_reached_ends_with_code_2(
    fault, checking_store, s3_url, monkeypatch, capsys
):
    environment, url = _faulty(fault, checking_store, s3_url)
    monkeypatch.setattr("sys.argv", ["deepprofile", "inspect", url])
    with servers.active(environment), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    printed = "".join(capsys.readouterr())
    assert "error:" in printed and url in printed
    assert servers.SECRET_KEY not in printed


def test_a_reader_may_open_a_cube_and_not_make_one(checking_store, s3_url):
    open_or_create(f"{s3_url}/cube", template())
    with servers.active(checking_store.reader):
        assert list(dp.open_cube(f"{s3_url}/cube", chunks=None)["layer"].values)
        with pytest.raises(CubeError, match=r"AccessDenied.*what they may do"):
            open_or_create(f"{s3_url}/other", template())


def test_anyone_may_read_what_is_public(checking_store):
    url = f"s3://{servers.PUBLIC}/{os.getpid()}"
    open_or_create(f"{url}/cube", template())
    places.write_bytes(f"{url}/file", b"open")
    without = {k: v for k, v in checking_store.environment.items() if "KEY" not in k}
    with servers.active({**without, "AWS_NO_SIGN_REQUEST": "YES"}):
        assert places.read_bytes(f"{url}/file") == b"open"
        assert dp.open_cube(f"{url}/cube", chunks=None).sizes["layer"] == 2
        with pytest.raises(OSError, match="does not let us in"):
            places.write_bytes(f"{url}/file", b"changed")


def test_a_fork_that_travels_to_workers_holds_no_secret(s3_url):
    open_or_create(f"{s3_url}/cube", template())
    repository = open_repository(f"{s3_url}/cube")
    sent = pickle.dumps(repository.writable_session("main").fork())
    assert servers.SECRET_KEY.encode() not in sent
    assert servers.SECRET_KEY not in repr(repository) + repr(places.filesystem(s3_url)[0].to_json())


def test_files_and_folders_travel_both_ways(s3_url, tmp_path):
    with places.written_folder(f"{s3_url}/folder") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "b").write_bytes(b"bb")
        (folder / "a").write_bytes(b"a")
    with places.local_copy(f"{s3_url}/folder") as copy:
        found = {
            p.relative_to(copy).as_posix(): p.read_bytes() for p in copy.rglob("*") if p.is_file()
        }
        assert found == {"a": b"a", "deep/b": b"bb"}
    assert not copy.exists()
    with pytest.raises(RuntimeError), places.written(f"{s3_url}/half") as path:
        path.write_bytes(b"half")
        raise RuntimeError
    assert not places.exists(f"{s3_url}/half")


# --- parts of a file --------------------------------------------------------------------------


def test_parts_of_a_file_are_its_bytes_wherever_it_is(s3_url, tmp_path):
    content = bytes(range(256)) * 300
    starts, stops = [0, 70_000, 5, 76_799], [10, 80_000, 6, 76_800]
    expected = [content[a:b] for a, b in zip(starts, stops, strict=True)]
    for url in (f"{s3_url}/a b.bin", str(tmp_path / "a b.bin"), "memory://parts/a.bin"):
        places.write_bytes(url, content)
        assert [bytes(part) for part in places.read_ranges(url, starts, stops)] == expected
        with pytest.raises(FileNotFoundError):
            places.read_ranges(url + "x", [0], [1])


def test_parts_that_may_not_be_read_are_named_without_the_key(s3_url, monkeypatch):
    places.write_bytes(f"{s3_url}/a.bin", b"content")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(places.DeniedError, match="does not let us in") as caught:
        places.read_ranges(f"{s3_url}/a.bin", [0], [1])
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_parts_of_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("deepprofile.s3.RETRIES", 0)
    with pytest.raises(places.UnreachableError, match="does not answer") as caught:
        places.read_ranges("s3://bucket/a.bin", [0], [1])
    assert len(str(caught.value)) < 500


def test_parts_of_odd_names_and_beyond_the_end(s3_url):
    for name in ("a//b.bin", "a b+c=d%20ü.bin"):
        places.write_bytes(f"{s3_url}/{name}", b"content")
        assert bytes(places.read_ranges(f"{s3_url}/{name}", [2], [4])[0]) == b"nt"
    with pytest.raises(places.ObjectStoreError, match="range is not satisfiable") as caught:
        places.read_ranges(f"{s3_url}/a b+c=d%20ü.bin", [100], [104])
    assert not isinstance(caught.value, places.UnreachableError)


def test_a_profile_that_is_not_there_is_no_silent_store(s3_url, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nope")
    with pytest.raises(places.DeniedError, match=r"profile \(nope\).*AWS_PROFILE"):
        places.find(s3_url)


@pytest.mark.parametrize("endpoint", ["nonsense", "s3.example.org", "ftp://s3.example.org"])
def test_an_endpoint_that_is_no_url_is_one_message(endpoint, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setattr("sys.argv", ["deepprofile", "inspect", "s3://tests/nothing"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"AWS_ENDPOINT_URL is '{endpoint}': expected the URL" in said
    assert "Traceback" not in said
