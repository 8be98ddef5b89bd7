"""Pings: which facts ask which URL, what a URL must be, and the asking itself against a real server on this machine."""

import json
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import pytest

from chalicelib import wiring
from chalicelib.model import Kind, Outcome
from chalicelib.operate import operate
from chalicelib.operators.changes import ChangeHost
from chalicelib.pinger import HttpsPinger, _NoRedirect, _open
from chalicelib.pings import wrong_with
from tests.fakes.world import World

R1, R2, R3 = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 4))
URL = "https://hc-ping.com/5b2a8f2e"


@pytest.fixture
def world() -> World:
    world = World()
    world.enrol("C", "H")
    ChangeHost(host="C", ping_url=URL).answer(world.wired)
    return world


# --- when -----------------------------------------------------------------------------------------------


def test_a_backup_that_counts(world: World) -> None:
    world.start("C", R1)
    assert world.told.pinged == [f"{URL}/start"]
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.finish("C", R1)
    assert world.told.pinged == [f"{URL}/start"], "finished is not yet a backup"
    world.arrive()
    world.arrive()
    assert world.told.pinged == [f"{URL}/start", URL]
    world.pass_minutes(20)
    assert len(world.told.pinged) == 2, "told once"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CUT])
def test_a_backup_that_ended_otherwise(world: World, outcome: Outcome) -> None:
    world.start("C", R1)
    world.boot()
    world.finish("C", R1, outcome, 5)
    assert world.told.pinged == [f"{URL}/start", f"{URL}/fail"]


def test_a_backup_of_which_nothing_was_heard(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.pass_minutes(16)
    assert world.told.pinged == [f"{URL}/start", f"{URL}/fail"]


def test_a_newer_run_takes_over_without_an_alarm(world: World) -> None:
    world.start("C", R1)
    world.start("C", R2)
    assert world.told.pinged == [f"{URL}/start"] * 2


def test_restores_and_other_hosts_are_nobodys_business(world: World) -> None:
    world.backed_up("C", R3)
    world.told.pinged.clear()
    world.start("C", R1, kind=Kind.RESTORE)
    world.start("H", R2)
    assert world.told.pinged == []


def test_a_ping_that_fails_is_counted_and_changes_nothing_else(world: World) -> None:
    world.told.pings_fail = True
    assert world.start("C", R1).run_id == R1
    (fault,) = world.told.faults
    assert fault == ("ping_failed", {"site": "hc-ping.com", "error": "HTTP 500"}), "the path is the host's secret"


def test_no_more_pings_once_it_is_taken_away(world: World) -> None:
    ChangeHost(host="C", ping_url="").answer(world.wired)
    world.start("C", R1)
    assert world.told.pinged == []


# --- which URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://hc-ping.com/x",
        "https://",
        "https:///x",
        "ftp://hc-ping.com/x",
        "file:///etc/passwd",
        "hc-ping.com/x",
        "https://user:secret@hc-ping.com/x",
        "https://hc-ping.com/x?y=1",
        "https://hc-ping.com/x#y",
        "https://hc-ping.com:0/x",
        "https://hc-ping.com:no/x",
        "https://hc-ping.com/a b",
        "https://hc-ping.com/ä",
        "https://hc-ping.com/" + "x" * 500,
        "https://[::1/x",
    ],
)
def test_what_is_no_ping_url(world: World, url: str) -> None:
    assert wrong_with(url)
    before = world.vault
    wiring.install(world.wired)
    try:
        answer = operate({"action": "change_host", "host": "C", "ping_url": url})
    finally:
        wiring.install(None)
    assert answer["error"]["code"] == "BadRequest"
    assert answer["error"]["message"].startswith("ping_url:")
    assert world.vault == before


@pytest.mark.parametrize("url", [URL, "https://hc.example.org:8443/ping/x", "https://192.0.2.1/x", URL + "/"])
def test_what_is_one(url: str) -> None:
    assert wrong_with(url) is None


def test_a_slash_at_its_end_is_not_doubled(world: World) -> None:
    ChangeHost(host="C", ping_url=URL + "/").answer(world.wired)
    world.start("C", R1)
    assert world.told.pinged == [f"{URL}/start"]


# --- the asking -----------------------------------------------------------------------------------------


class Site:
    """An HTTPS server with a certificate of its own making."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.hold = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                if self.path == "/hangs":
                    site.hold.wait(20)
                if self.path == "/drips":
                    for byte in b"HTTP/1.0 200 OK\r\nX-Slow: " + b"x" * 100:
                        self.wfile.write(bytes([byte]))
                        if site.hold.wait(0.1):
                            return
                self.send_response({"/gone": 404, "/moved": 302}.get(self.path, 200))
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        key, self.certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-keyout", str(key), "-out", str(self.certificate), "-days", "1", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
            ],
            check=True,
            capture_output=True,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def trusting(self, request: urllib.request.Request, timeout: float) -> IO[bytes]:
        """What HttpsPinger does, for one that trusts this certificate."""
        context = ssl.create_default_context(cafile=self.certificate)
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))
        answer: IO[bytes] = opener.open(request, timeout=timeout)
        return answer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


def test_each_url_is_asked_once(site: Site) -> None:
    site.asked.clear()
    assert HttpsPinger(site.trusting).ping([f"{site.url}/x/start", f"{site.url}/y"]) == {}
    assert sorted(site.asked) == ["/x/start", "/y"]


def test_what_failed_is_said_and_no_redirect_is_followed(site: Site) -> None:
    site.asked.clear()
    urls = [f"{site.url}/gone", f"{site.url}/moved", f"{site.url}/fine"]
    wrong = HttpsPinger(site.trusting).ping(urls)
    assert wrong == {urls[0]: "HTTP 404", urls[1]: "HTTP 302"}
    assert "/elsewhere" not in site.asked


def test_a_certificate_that_nobody_vouches_for_is_not_believed(site: Site) -> None:
    site.asked.clear()
    (wrong,) = HttpsPinger(_open).ping([f"{site.url}/x"]).values()
    assert "CERTIFICATE_VERIFY_FAILED" in wrong
    assert site.asked == []


def test_plain_http_is_never_asked() -> None:
    asked: list[str] = []

    def opener(request: urllib.request.Request, timeout: float) -> IO[bytes]:
        asked.append(f"{request.full_url} {timeout}")
        raise AssertionError

    assert HttpsPinger(opener).ping(["http://127.0.0.1:1/x"]) == {"http://127.0.0.1:1/x": "not https"}
    assert asked == []


def test_nobody_listens() -> None:
    (wrong,) = HttpsPinger().ping(["https://127.0.0.1:1/x"]).values()
    assert "refused" in wrong.lower()


@pytest.mark.parametrize("path", ["/hangs", "/drips"])
def test_a_site_that_does_not_answer_holds_nobody_up(site: Site, path: str) -> None:
    urls = [f"{site.url}{path}"] + [f"{site.url}/{n}" for n in range(3)]
    began = time.monotonic()
    wrong = HttpsPinger(site.trusting, timeout_seconds=2.0).ping(urls)
    assert time.monotonic() - began < 5
    assert set(wrong) == {urls[0]}, json.dumps(wrong)
