"""The live report: a real server on loopback, which makes the page anew while runs come."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coreai_opt.report.page.live import Live, server_of
from tests.conftest import ROOT
from tests.helpers.synthetic_records import any_record, make_record, write_run


def get(port: int, path: str = "/", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode("utf-8")
    connection.close()
    return answer.status, text


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Live, int]]:
    write_run(tmp_path / "0", any_record(["lr=1"], {"score": 0.5}))
    live = Live((tmp_path,))
    live.renew()
    with server_of(live) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield live, server.server_port
        server.shutdown()
        thread.join()


def test_the_page_is_made_anew_when_a_record_comes(
    served: tuple[Live, int], tmp_path: Path
) -> None:
    live, port = served
    assert "1 run: 1 completed" in get(port)[1]
    assert get(port, "/version") == (200, "1")
    assert not live.renew()  # nothing has changed
    write_run(tmp_path / "1", any_record(["lr=2"], {"score": 0.75}))
    assert live.renew()
    status, page = get(port)
    assert (status, get(port, "/version")) == (200, (200, "2"))
    assert "2 runs: 2 completed" in page
    assert 'data-version="2"' in page
    assert "connect-src 'self'" in page
    assert 'href="1/"' not in page  # a page of a server has no links to files


def test_a_run_that_is_killed_changes_the_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "0", make_record(status="running"), is_alive=True)
    live = Live((tmp_path,))
    live.renew()
    assert "1 run: 1 running" in live.page
    write_run(folder, make_record(status="running"))
    assert live.renew()
    assert "1 run: 1 interrupted" in live.page


def test_only_the_page_is_served_and_only_under_its_own_name(served: tuple[Live, int]) -> None:
    _, port = served
    assert get(port, "/result.json") == (404, "there is no such page; allowed: / and /version")
    assert get(port, "/../0/.coreai/result.json")[0] == 404
    assert get(port, host=f"localhost:{port}")[0] == 200
    assert get(port, host=f"evil.example:{port}")[0] == 403


def test_the_server_listens_on_loopback_alone(served: tuple[Live, int]) -> None:
    _, port = served
    listening = [
        line.split()
        for file in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(file).read_text().splitlines()[1:]
        if Path(file).exists()
    ]
    # The address is in hex with its bytes reversed; 0A = it listens.
    found = {words[1] for words in listening if words[3] == "0A"}
    assert f"0100007F:{port:04X}" in found
    assert [one for one in found if one.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_wishes_that_cannot_be_fulfilled_yet_are_said_on_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "0", any_record(["lr=1", "width=8"], {"score": 0.5}))
    live = Live((tmp_path,), metric="late", knobs=("lr", "width"))
    live.renew()
    assert "no completed run has the metric &#39;late&#39;" in live.page
    assert "until then score is shown" in live.page
    assert "--knobs: &#39;lr&#39; does not vary" in live.page
    write_run(tmp_path / "1", any_record(["lr=2", "width=16"], {"late": 0.5}))
    write_run(tmp_path / "2", any_record(["lr=3", "width=32"], {"late": 0.5}))
    live.renew()
    assert "until then" not in live.page


def test_an_empty_directory_is_served_until_runs_come(tmp_path: Path) -> None:
    live = Live((tmp_path,))
    live.renew()
    assert "No run has completed yet." in live.page


def test_the_command_prints_its_address_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    write_run(tmp_path / "0", any_record(["lr=1"], {"score": 0.5}))
    words = [sys.executable, "-u", "-m", "coreai_opt.report", str(tmp_path), "--live"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = process.stdout.readline()
            address = re.fullmatch(r"serving http://127\.0\.0\.1:(\d+)/ until Ctrl-C\n", told)
            assert address is not None
            port = int(address[1])
            assert "1 run: 1 completed" in get(port)[1]
            write_run(tmp_path / "1", any_record(["lr=2"], {"score": 0.75}))
            limit = time.monotonic() + 30
            while get(port, "/version")[1] == "1" and time.monotonic() < limit:
                time.sleep(0.1)
            assert "2 runs: 2 completed" in get(port)[1]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stdout.read() == "ended\n"
        finally:
            process.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]  # nothing was written


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    write_run(tmp_path / "0", any_record(["lr=1"], {"score": 0.5}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = [sys.executable, "-m", "coreai_opt.report", str(tmp_path), "--live"]
        done = subprocess.run(
            [*words, "--port", str(port)], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --port: {port} cannot be listened on: ")
    assert len(done.stderr.splitlines()) == 1
