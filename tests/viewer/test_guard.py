"""What the viewer refuses, and what it never says."""

import re
from pathlib import Path

import pytest

from tests.viewer.running import TOKEN, RunningViewer


def own(viewer: RunningViewer) -> str:
    return f"127.0.0.1:{viewer.port}"


@pytest.mark.parametrize("path", ["/", "/slide", "/static/slide.js", "/api/slides", "/nothing"])
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], f"{TOKEN}x", "ü"])
def test_without_the_token_nothing_is_answered(viewer: RunningViewer, path: str, token: str | None) -> None:
    answer = viewer.ask(path, token=None if token is None else token.encode().decode("latin-1"))
    assert answer.status == 403
    assert b"slide" not in answer.body.replace(b"pathoml view", b"")


def test_the_token_in_the_address_becomes_a_cookie_that_scripts_cannot_read_and_other_sites_do_not_send(
    viewer: RunningViewer,
) -> None:
    answer = viewer.ask(f"/?token={TOKEN}", token=None)
    assert answer.status == 303
    assert answer.headers["location"] == "./"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    pair = cookie.partition(";")[0]
    assert viewer.ask("/api/slides", token=None, Cookie=pair).status == 200
    assert viewer.ask("/api/slides", token=None, Cookie=pair[:-1]).status == 403
    assert viewer.ask(f"/api/slides?token={TOKEN}", token=None).status == 403, "a token in other addresses would leak"
    assert viewer.ask(f"/?token={TOKEN}&token=wrong", token=None).status == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8765", "10.0.0.5", "", "0.0.0.0:8765"]
)
def test_a_foreign_host_is_refused_even_with_the_token(viewer: RunningViewer, host: str) -> None:
    assert viewer.ask("/api/slides", Host=host).status in {400, 421}


@pytest.mark.parametrize("host", ["127.0.0.1:1234", "localhost", "LOCALHOST:9000", "[::1]:8765"])
def test_through_a_tunnel_the_port_may_be_another_one(viewer: RunningViewer, host: str) -> None:
    assert viewer.ask("/api/slides", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors", "Origin": "http://localhost:8888"},
    ],
)  # fmt: skip
def test_other_sites_are_refused_and_never_named_as_allowed(viewer: RunningViewer, headers: dict[str, str]) -> None:
    answer = viewer.ask("/api/slides", **headers)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_its_own_pages_may_ask(viewer: RunningViewer) -> None:
    answer = viewer.ask("/api/slides", Origin=f"http://{own(viewer)}", Sec_Fetch_Site="same-origin")
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_is_read_only(viewer: RunningViewer, method: str) -> None:
    assert viewer.ask("/api/slides", method=method).status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/../../etc/passwd",
        "/static/..%5c..%5capp.py", "/static//etc/passwd", "/static/app.py", "/static/", "/api/slides/..%2f..%2fplain.tif",
        "/api/slides/../../plain.tif", "/api/slides/plain", "/api/slides/plain.tif", "/api/slides/%00", "/etc/passwd",
        "/api/slides/Maria_Muster_1950/thumbnail.jpg", "/static/list.js%00.css",
    ],
)  # fmt: skip
def test_no_address_leads_to_a_file(viewer: RunningViewer, path: str) -> None:
    answer = viewer.ask(path)
    assert answer.status == 404
    assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "tile",
    [
        "4/12/0", "99/0/0", "4/0/999999", "0/1/0", "4/-1/0", "-1/0/0", "1e3/0/0", "4/0x1/0", "4/1.5/0", "4/NaN/0", "4/ /0",
        "4/%2b1/0", f"4/{'9' * 5000}/0", "9999999/9999999/9999999", "4/٣/0", "4/²/0",
    ],
)  # fmt: skip
def test_absurd_tiles_are_refused_without_work(viewer: RunningViewer, tile: str) -> None:
    slide = viewer.slide_ids()[0]
    path = f"/api/slides/{slide}/tiles/{tile}.jpg".replace(" ", "%20")
    path = "".join(
        letter if letter.isascii() else "".join(f"%{byte:02x}" for byte in letter.encode()) for letter in path
    )
    assert viewer.ask(path).status == 404


def test_an_address_of_many_kilobytes_is_refused_and_the_viewer_lives(viewer: RunningViewer) -> None:
    assert viewer.ask(f"/api/slides/{'a' * 60_000}").status in {400, 404, 414, 431}
    assert viewer.ask("/api/slides").status == 200


def test_every_answer_is_sealed(viewer: RunningViewer) -> None:
    slide = viewer.slide_ids()[0]
    for path in ("/", "/slide", "/static/slide.js", "/api/slides", f"/api/slides/{slide}/thumbnail.jpg", "/nothing"):
        headers = viewer.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    for path in ("/api/slides", f"/api/slides/{slide}/thumbnail.jpg", f"/api/slides/{slide}/tiles/0/0/0.jpg"):
        assert viewer.ask(path).headers["cache-control"] == "no-store", (
            "nothing of a patient stays on the browser's disk"
        )


def test_pages_name_nothing_outside_and_only_files_that_there_are(viewer: RunningViewer) -> None:
    for page in ("/", "/slide"):
        text = viewer.ask(page).body.decode()
        assert "://" not in text
        for address in re.findall(r'(?:src|href)="(static/[^"]+)"', text):
            assert viewer.ask(f"/{address}").status == 200
        assert not re.search(r"""\s(style|on\w+)=["']""", text), (
            "inline styles and handlers are forbidden by the policy"
        )
    for name in ("list.js", "slide.js", "overlay.js", "regions.js", "survival.js", "common.js", "style.css"):
        text = viewer.ask(f"/static/{name}").body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text


def test_neither_file_names_nor_patients_that_the_manifest_pseudonymises_are_ever_said(viewer: RunningViewer) -> None:
    everything = viewer.ask("/api/slides").body
    for slide in viewer.slide_ids():
        for part in ("", "/scores", "/thumbnail.jpg", "/tiles/0/0/0.jpg", "/crops/0.jpg"):
            answer = viewer.ask(f"/api/slides/{slide}{part}")
            everything += answer.body + repr(answer.headers).encode()
    assert b"Muster" not in everything
    assert b"1950" not in everything
    assert b"S-0001" in everything
    assert b"/slides.csv" not in everything


def test_a_damaged_slide_is_told_by_its_code_alone(manifest: Path, tmp_path: Path) -> None:
    from pathoml.pipeline.viewing import open_library
    from tests.viewer.running import running_viewer

    content = (manifest.parent / "plain.tif").read_bytes()
    (tmp_path / "Erika_Secret.tif").write_bytes(content[: len(content) // 3])
    table = tmp_path / "slides.csv"
    table.write_text("slide_id,path,patient_id,pseudonym\nErika_Secret,Erika_Secret.tif,Secret,S-2\n")
    with running_viewer(open_library(table), tmp_path) as viewer:
        answer = viewer.ask(f"/api/slides/{viewer.slide_ids()[0]}/thumbnail.jpg")
    assert answer.status == 422
    assert answer.json["error"].isupper()
    assert b"Secret" not in answer.body


def test_label_and_macro_images_have_no_address(data_dir: Path, tmp_path: Path) -> None:
    """The slide has both; what is served is its pixels alone, and none of their metadata."""
    from pathoml.pipeline.viewing import open_library
    from tests.viewer.running import running_viewer

    with running_viewer(open_library(data_dir / "slides" / "CMU-1-Small-Region.svs"), tmp_path) as viewer:
        (slide,) = viewer.slide_ids()
        for name in ("label", "macro", "label.jpg", "macro.jpg", "associated/label", "tiles/label", "images/macro"):
            assert viewer.ask(f"/api/slides/{slide}/{name}").status == 404
        described = viewer.ask(f"/api/slides/{slide}")
        assert described.json["image"]["width_px"] == 2220
        for canary in (b"ScanScope", b"Filename", b"Aperio"):
            assert canary not in described.body
