"""Live report: the page on loopback, made anew when a record changes."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from coreai_opt.report.arguments import knobs_trouble
from coreai_opt.report.collect import collect
from coreai_opt.report.metric_choice import MetricError
from coreai_opt.report.page.html import report_html
from coreai_opt.report.page.made import Report, make_report
from coreai_opt.report.records import Collected

LOOPBACK = "127.0.0.1"
POLL_S = 1.0
# Of all time at most this share goes into reading and making the page.
BUSY = 0.25


@dataclass
class Live:
    """The newest page of some directories.

    Attributes:
        roots: the directories.
        metric: what is compared, as in ``board_of``; another one until a run has it.
        mode: which way is better, as in ``board_of``.
        knobs: first axes of the heat map, others until both vary.
        page: the newest page.
        version: its number, empty while there is none.
    """

    roots: tuple[Path, ...]
    metric: str | None = None
    mode: str | None = None
    knobs: tuple[str, ...] = ()
    page: str = ""
    version: str = ""
    _shown: Collected | None = field(default=None, repr=False)

    def renew(self) -> bool:
        """Make the page anew if a record has changed, and return whether it was made."""
        collected = collect(list(self.roots))
        if collected == self._shown:
            return False
        made, troubles = self._made(collected)
        knobs = self.knobs
        if (trouble := knobs_trouble(knobs, made.board)) is not None:
            troubles.append(f"{trouble}; until then another pair is shown")
            knobs = ()
        version = str(int(self.version or 0) + 1)
        self.page = report_html(made, None, knobs, version, [*troubles, *made.sentences])
        self.version, self._shown = version, collected
        return True

    def _made(self, collected: Collected) -> tuple[Report, list[str]]:
        try:
            return make_report(collected, self.metric, self.mode), []
        except MetricError as error:
            made = make_report(collected, None, self.mode)
            return made, [f"--metric: {error}; until then {made.board.metric} is shown"]


def serve(live: Live, port: int = 0, say: Callable[[str], None] = print) -> None:
    """Serve the page on loopback until Ctrl-C.

    Args:
        live: the page.
        port: 1 to 65535, 0 = a free one.
        say: is given the sentence with the address.

    Raises:
        OSError: the port cannot be listened on.
    """
    with server_of(live, port) as server:
        try:
            live.renew()
            threading.Thread(target=server.serve_forever, daemon=True).start()
            say(f"serving http://{LOOPBACK}:{server.server_port}/ until Ctrl-C")
            while True:
                begun = time.monotonic()
                live.renew()
                spent = time.monotonic() - begun
                time.sleep(max(POLL_S, spent / BUSY))
        except KeyboardInterrupt:
            say("ended")


def server_of(live: Live, port: int = 0) -> ThreadingHTTPServer:
    """Return the server of a page, which listens on loopback alone.

    Raises:
        OSError: the port cannot be listened on.
    """

    class Handler(BaseHTTPRequestHandler):
        """``/`` is the page, ``/version`` its number."""

        def do_GET(self) -> None:
            # A name of elsewhere that leads here would let a foreign page read this one.
            hosts = {f"{name}:{server.server_port}" for name in (LOOPBACK, "localhost")}
            if self.headers.get("Host") not in hosts:
                self._answer(403, f"this server is http://{LOOPBACK}: no other name", "plain")
            elif self.path == "/":
                self._answer(200, live.page, "html")
            elif self.path == "/version":
                self._answer(200, live.version, "plain")
            else:
                self._answer(404, "there is no such page; allowed: / and /version", "plain")

        def _answer(self, code: int, text: str, kind: str) -> None:
            content = text.encode("utf-8", "backslashreplace")
            self.send_response(code)
            self.send_header("Content-Type", f"text/{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the terminal free of a line a second."""

    server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    server.daemon_threads = True
    return server
