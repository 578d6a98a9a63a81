"""`edgeopt serve` as its users meet it: real requests to a real server, on loopback, with files that behave and files
that do not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from serve_client import Server, command, is_alive, resident_bytes, serving, wait_for
from served_runs import CLASSES, PREPROCESSING, SIDE, image, make_run, red_network

from edgeopt.data.images import open_image
from edgeopt.serving.limits import Limits

FINE, ONNX = "run/fine/optimized/model.txt", "run/onnx/optimized/model.onnx"
ABORT, HANG, RAISE, NAN, WAIT, TALK = range(250, 256)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    run = make_run(folder / "run", {"fine": "", "onnx": red_network()})
    with serving(run, "--max-megapixels", 1, "--max-megabytes", 0.5, "--wait", 60, log=folder / "log.txt") as started:
        yield started


# ---- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_file_answers_with_its_times(server, kind):
    file = image(33, side=40, kind=kind)
    red = round(float(PREPROCESSING.pixels(open_image(file, "it"))[..., 0].mean()))  # some formats lose a little
    for name in (FINE, ONNX):
        answered = server.predict(name, file)
        assert answered.status == 200, answered.body
        assert answered.json["label"] == answered.json["top"][0]["label"] == f"c{red}"
        assert len(answered.json["top"]) == 5
        assert answered.json["confidence"] == answered.json["top"][0]["confidence"] > 0.5
        steps = [answered.json[f"{step}_ms"] for step in ("queue", "decode", "preprocessing", "file")]
        assert all(step >= 0 for step in steps)
        assert sum(steps) <= answered.json["total_ms"]
        assert answered.json["size_bytes"] == server.state(name)["size_bytes"]


def test_an_image_is_preprocessed_as_everywhere(server):
    """What a file is fed with is what training and evaluation would have: upright, on the card's ground, resized and cut."""
    odd = Image.new("RGBA", (30, 90), (200, 0, 0, 0))
    odd.paste((20, 0, 0, 255), (0, 0, 30, 60))
    file = io.BytesIO()
    odd.save(file, "PNG")
    pixels = PREPROCESSING.pixels(open_image(file.getvalue(), "odd"))
    red = round(float(pixels[..., 0].mean()))
    assert server.predict(FINE, file.getvalue()).json["label"] == f"c{red % 100}"


def test_a_test_image_of_the_run_is_taken_as_it_is(server):
    samples = server.ask("/v1/samples").json
    assert [(each["run"], each["index"], each["truth"]) for each in samples] == [("run", 3, "c40"), ("run", 5, "c41")]
    kept = server.ask("/" + samples[0]["image"])
    assert (kept.status, kept.headers["content-type"]) == (200, "image/png")
    assert server.predict(ONNX, kept.body, prepared="true").json["label"] == "c40"
    refused = server.predict(ONNX, image(1, side=SIDE + 1), prepared="true")
    assert refused.status == 415
    assert "8 × 8 pixels, not 9 × 9" in refused.json["error"]
    assert server.predict(ONNX, kept.body, prepared="maybe").status == 400
    assert server.ask("/v1/samples/run/4").status == 404
    assert server.ask("/v1/samples/..%2f..%2fetc/4").status == 404


def test_files_are_described(server):
    files = server.ask("/v1/files").json
    assert [each["name"] for each in files] == [FINE, ONNX]
    expected = {"run": "run", "export": "fine", "runtime": "colours", "precision": "int8", "image_size": SIDE}
    expected |= {"state": "ready", "reason": None, "test_accuracy": 0.9, "role": "optimized"}
    assert {name: files[0][name] for name in expected} == expected


def test_the_description_for_programs_holds(server):
    """Each answer has the shape that openapi.json gives it."""
    import jsonschema

    described = server.ask("/openapi.json").json
    assert described["openapi"].startswith("3.1")

    def hold(answered, path, method="get"):
        (content,) = described["paths"][path][method]["responses"][str(answered.status)]["content"].values()
        jsonschema.validate(answered.json, content["schema"] | {"components": described["components"]})

    for path in ("/v1/files", "/v1/samples", "/health"):
        hold(server.ask(path), path)
    hold(server.predict(FINE, image(1)), "/v1/predict", "post")
    hold(server.predict(FINE, b"nothing"), "/v1/predict", "post")
    (parameter, *_) = described["paths"]["/v1/predict"]["post"]["parameters"]
    assert parameter["schema"]["enum"] == [FINE, ONNX]


def test_health_and_metrics(server):
    assert server.ask("/health").json == {"status": "ok", "files": dict.fromkeys([FINE, ONNX], "ready")}
    before = _metric(server, f'edgeopt_requests_total{{file="{FINE}",status="200"}}')
    server.predict(FINE, image(1))
    text = server.ask("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert _metric(server, f'edgeopt_requests_total{{file="{FINE}",status="200"}}') == before + 1
    count = _metric(server, f'edgeopt_file_seconds_count{{file="{FINE}"}}')
    assert count == _metric(server, f'edgeopt_file_seconds_bucket{{file="{FINE}",le="+Inf"}}') == before + 1
    assert _metric(server, f'edgeopt_file_up{{file="{ONNX}"}}') == 1
    assert _metric(server, "edgeopt_held_bytes") == 0


def _metric(server, name):
    lines = [line for line in server.ask("/metrics").body.decode().splitlines() if line.startswith(name + " ")]
    return float(lines[0].rpartition(" ")[2]) if lines else 0


def test_a_hundred_clients_at_once_get_their_own_answers(server):
    jobs = [(name, red) for red in range(100) for name in (FINE, ONNX, FINE, ONNX)]
    random.Random(0).shuffle(jobs)
    with ThreadPoolExecutor(100) as clients:
        answers = list(clients.map(lambda job: server.predict(job[0], image(job[1])), jobs))
    assert [answer.status for answer in answers] == [200] * len(jobs)
    assert [(answer.json["file"], answer.json["label"]) for answer in answers] == [
        (name, f"c{red}") for name, red in jobs
    ]


# ---- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no body"),
        (b"nothing", 415, "not an image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 415, "cannot be read"),
        (image(7, side=200, kind="JPEG")[:-300], 415, "cannot be read"),
        (image(7, side=1_001), 413, "1001 × 1001 pixels"),
        (bytes(500_001), 413, "500,000 bytes"),
        (image(7, kind="PPM"), 415, "not an image"),  # a format that is not in the list
        (image(7, side=16, kind="ICO"), 415, "not an image"),
    ],
    ids=["none", "text", "torn", "cut", "pixels", "bytes", "ppm", "ico"],
)
def test_what_is_no_image_is_refused_with_a_reason(server, body, status, words):
    for name in (FINE, ONNX):
        answered = server.predict(name, body)
        assert (answered.status, words in answered.json["error"]) == (status, True), answered.body


def test_two_hundred_megapixels_are_not_decoded(server):
    """A file of a few kB whose header says that it is huge: Pillow's own bound is met before ours."""
    huge = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(huge, "PNG")
    answered = server.predict(FINE, huge.getvalue())
    assert (answered.status, "at most 1,000,000" in answered.json["error"]) == (413, True), answered.body


def test_bytes_are_counted_while_they_come(server):
    """A body of no length that it tells is cut off at the limit."""

    def pieces():
        for _ in range(60):
            yield bytes(20_000)

    answered = server.ask(f"/v1/predict?file={FINE}", pieces())
    assert (answered.status, answered.headers["connection"]) == (413, "close")


def test_a_body_that_never_ends_is_given_up(tmp_path):
    from edgeopt.report.finished_files import Catalogue
    from edgeopt.serving import api, body, guard  # in this process, with less patience than the command has

    limits = Limits(pause_s=0.3, body_s=1.0, image_bytes=10_000)
    application = guard.Guard(api.Api(Catalogue((), ()), {}, limits, tmp_path).app(), ())
    assert body.Bodies(limits).held_bytes == 0
    for every_s, words in ((60.0, "for 0.3 s nothing came"), (0.1, "1 s")):
        status, answer = _asked(application, every_s)
        assert (status, words in answer["error"]) == (408, True), answer


def test_a_head_that_never_ends_is_given_up(monkeypatch):
    """A connection on which nothing comes, one with half a head, and one with half a head after a whole request."""
    import asyncio

    import uvicorn
    from starlette.responses import PlainTextResponse
    from uvicorn.server import ServerState

    from edgeopt.serving.patience import ImpatientProtocol

    monkeypatch.setattr(ImpatientProtocol, "head_s", 0.3)
    options = {"http": ImpatientProtocol, "lifespan": "off", "log_config": None, "ws": "none", "timeout_keep_alive": 1}
    config = uvicorn.Config(PlainTextResponse("ok"), **options)

    async def ask():
        loop = asyncio.get_running_loop()
        config.load()
        server = await loop.create_server(lambda: ImpatientProtocol(config, ServerState(), {}), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        whole, half = b"GET / HTTP/1.1\r\nHost: it\r\n\r\n", b"GET / HTTP/1.1\r\nHo"
        for sent, answers in ((b"", 0), (half, 0), (whole, 1), (whole + half, 1)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            start = loop.time()
            answered = await asyncio.wait_for(reader.read(), 20)
            assert answered.count(b"200 OK") == answers
            assert 0.25 < loop.time() - start < 10  # not at once, and not never
            writer.close()
        server.close()

    asyncio.run(ask())


def _asked(application, every_s):
    import asyncio

    async def ask():
        sent = []

        async def receive():
            await asyncio.sleep(every_s)
            return {"type": "http.request", "body": b"a", "more_body": True}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"file=x", "headers": []}
        scope |= {"http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 1), "root_path": ""}
        await application(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    return asyncio.run(ask())


def test_a_busy_file_says_when_to_come_again(tmp_path):
    """Two with the process, and the others wait; who waits too long is told."""
    run = make_run(tmp_path / "run", {"fine": ""})
    with serving(run, "--wait", 1, log=tmp_path / "log.txt") as server, ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda _: server.predict(FINE, image(9, WAIT)), range(20)))
    assert {answer.status for answer in answers} == {200, 503}
    late = next(answer for answer in answers if answer.status == 503)
    assert int(late.headers["retry-after"]) >= 1
    assert "no turn came within 1 s" in late.json["error"]


def test_mistakes_in_a_request(server):
    unknown = server.predict("run/fine/optimised/model.txt", image(1))
    assert (unknown.status, FINE in unknown.json["hint"]) == (404, True)
    assert server.ask("/v1/predict", b"x").status == 404
    assert server.ask("/v1/predict?file=x").status == 405
    assert server.ask("/nowhere").json["error"] == "not found"
    assert server.ask("/", headers={"Host": "evil.example"}).status == 421
    assert server.ask("/", headers={"Host": f"localhost:{server.port}"}).status == 200
    cross = server.ask(f"/v1/predict?file={FINE}", image(1), headers={"Sec-Fetch-Site": "cross-site"})
    assert cross.status == 403


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(max_size=3_000),
        st.tuples(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]), st.data()).map(lambda pair: pair),
    )
)
def test_no_body_is_a_bug(server, body):
    """Random bytes, and image files with random bytes in them, are answered or refused, never a 500."""
    if not isinstance(body, bytes):
        kind, data = body
        torn = bytearray(image(5, 6, side=20, kind=kind))
        for _ in range(data.draw(st.integers(1, 8))):
            torn[data.draw(st.integers(0, len(torn) - 1))] = data.draw(st.integers(0, 255))
        body = bytes(torn[: data.draw(st.integers(1, len(torn)))])
    answered = server.predict(ONNX, body)
    assert answered.status in (200, 400, 413, 415), answered.body
    assert server.state(ONNX)["restarts"] == 0


def test_memory_stays_what_it_is(server):
    """Three thousand images on kept connections leave the server and the file's process as large as five hundred did."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    body = image(12, side=64, kind="JPEG")

    def ask(count):
        for _ in range(count):
            connection.request("POST", f"/v1/predict?file={FINE}", body)
            assert connection.getresponse().read()
        return [resident_bytes(pid) for pid in (server.process.pid, *server.children())]

    before = ask(500)
    after = ask(2_500)
    connection.close()
    assert max(now - then for now, then in zip(after, before, strict=True)) < 3e6


# ---- files that fail -----------------------------------------------------------------------------------------------


@pytest.fixture
def fragile(tmp_path):
    run = make_run(tmp_path / "run", {"fine": "", "other": ""})
    with serving(run, "--wait", 100, log=tmp_path / "log.txt") as started:
        yield started


def test_a_file_that_aborts_fails_its_request_and_nothing_else(fragile):
    """Fifty images, three of which kill the process: these fail, all others are answered, of both files."""
    other = FINE.replace("fine", "other")
    greens = [ABORT if red in (10, 20, 21) else 0 for red in range(50)]
    with ThreadPoolExecutor(20) as clients:
        tried = [clients.submit(fragile.predict, FINE, image(red, green)) for red, green in enumerate(greens)]
        beside = [clients.submit(fragile.predict, other, image(red)) for red in range(20)]
        answers, others = [each.result() for each in tried], [each.result() for each in beside]
    assert [answer.json["label"] for answer in others] == list(CLASSES[:20])
    assert [answer.status for answer in answers] == [502 if green else 200 for green in greens]
    assert all(answer.json["label"] == f"c{red}" for red, answer in enumerate(answers) if answer.status == 200)
    reason = answers[10].json["error"]
    assert "SIGABRT" in reason
    assert "the kernel has no room" in reason
    assert fragile.state(FINE)["restarts"] >= 3
    assert fragile.state(other)["restarts"] == 0
    assert fragile.predict(FINE, image(3)).json["label"] == "c3"
    assert "it is started again" in fragile.said()


def test_what_a_file_raises_is_told(fragile):
    raised = fragile.predict(FINE, image(1, RAISE))
    assert (raised.status, raised.json["error"]) == (502, "the file failed: this colour is not known")
    endless = fragile.predict(FINE, image(1, NAN))
    assert (endless.status, "not finite" in endless.json["error"]) == (502, True)
    assert [fragile.predict(FINE, image(1, TALK)).status for _ in range(3)] == [200] * 3  # more than a pipe holds
    assert fragile.state(FINE)["restarts"] == 0


def test_a_process_that_is_killed_is_started_again(fragile):
    for pid in fragile.children():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: fragile.state(FINE)["restarts"] == 1)
    assert fragile.predict(FINE, image(77)).json["label"] == "c77"  # waits until the file is open again


def test_files_that_do_not_open_leave_the_others(tmp_path):
    contents = {"fine": "", "damaged": "damaged", "aborts": "abort", "once": "abort-once"}
    run = make_run(tmp_path / "run", contents)
    with serving(run, log=tmp_path / "log.txt") as server:
        damaged = server.predict(FINE.replace("fine", "damaged"), image(1))
        assert damaged.status == 503
        assert "model.txt is damaged" in damaged.json["error"]
        assert int(damaged.headers["retry-after"]) >= 1
        assert "SIGABRT" in server.state(FINE.replace("fine", "aborts"))["reason"]
        assert server.ask("/health").json["status"] == "partly"
        assert server.predict(FINE, image(4)).json["label"] == "c4"
        once = FINE.replace("fine", "once")
        wait_for(lambda: server.state(once)["state"] == "ready")
        assert server.predict(once, image(4)).json["label"] == "c4"


def test_a_file_that_hangs_is_ended(tmp_path):
    import asyncio

    from edgeopt.serving import turns
    from edgeopt.serving.job import Wanted
    from edgeopt.serving.values import RefusalError

    run = make_run(tmp_path / "run", {"fine": ""})

    async def ask():
        told = []
        file = turns.Turns(await _starter(run, tmp_path), Limits(answer_s=3.0, queue_s=100), told.append)
        task = asyncio.create_task(file.run())
        hung = asyncio.create_task(file.answer(image(1, HANG), Wanted()))
        beside = asyncio.create_task(file.answer(image(2), Wanted()))
        with pytest.raises(RefusalError, match="no answer for 3 s") as refused:
            await hung
        assert refused.value.status == 504
        assert (await beside).top[0][0] == "c2"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(ask())


async def _starter(run, tmp_path):
    from functools import partial

    from served_runs import PLUGIN

    from edgeopt.plugins.registry import load_registry
    from edgeopt.report.finished_files import find_files
    from edgeopt.serving.process import AnsweringProcess
    from edgeopt.serving.served_tasks import task_uses
    from edgeopt.serving.server import ServerSettings, write_job

    registry = load_registry([PLUGIN])
    (file,) = find_files([run], registry).files
    use = task_uses([file], registry)[file.name]
    job = write_job(file, use, registry, ServerSettings(), tmp_path / "job.pickle")
    return partial(AnsweringProcess.start, job, 1)


# ---- the beginning and the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_server(tmp_path, number):
    run = make_run(tmp_path / "run", {"fine": "", "other": ""})
    with serving(run, log=tmp_path / "log.txt") as server:
        children = server.children()
        assert len(children) == 2
        busy = threading.Thread(target=_ask_quietly, args=(server, FINE))
        busy.start()
        time.sleep(0.05)
        server.process.send_signal(number)
        code = server.process.wait(30)
        assert code == (0 if number != signal.SIGKILL else -9)
        wait_for(lambda: not any(is_alive(pid) for pid in children))
        busy.join()
        assert "Traceback" not in server.said()


def _ask_quietly(server: Server, name: str) -> None:
    with contextlib.suppress(OSError):
        server.predict(name, image(1, WAIT))


def failing(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "300"}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env=environment
    )


def test_a_port_in_use_is_one_message(tmp_path):
    run = make_run(tmp_path / "run", {"fine": ""})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = failing(run, "--port", port, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"error: port {port} of 127.0.0.1 is in use",
        f"    end what listens there, or choose another: --port {port + 1}, or 0 for any that is free",
    ]


def test_nothing_that_opens_is_an_error(tmp_path):
    run = make_run(tmp_path / "run", {"one": "damaged", "two": "damaged"})
    done = failing(run, "--port", 0, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("error: run/") == 2
    assert "Traceback" not in done.stderr


def test_all_mistakes_of_the_command_line_at_once(tmp_path):
    whole, torn = make_run(tmp_path / "whole", {"fine": ""}), make_run(tmp_path / "torn", {"a": "", "b": "", "c": ""})
    (torn / "a/optimized/model.txt").unlink()
    (torn / "b/optimized/card.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/report.json").write_text("{}")
    done = failing(whole, torn, "missing", "other", cwd=tmp_path)
    assert done.returncode == 2
    for words in (
        "a/optimized/model.txt is gone",
        "b/optimized/card.json is no card",
        "missing: there is no report.json",
    ):
        assert words in done.stderr
    assert "other/report.json: not a report" in done.stderr
    assert "looked in" in done.stderr
    assert done.stderr.endswith("4 problems\n")
    options = failing(whole, "--port", 70_000, "--threads", 0, "--max-megabytes", 0, "--wait", -1, cwd=tmp_path)
    assert (options.returncode, "4 problems" in options.stderr) == (2, True)
    nowhere = failing(whole, "--host", "no.such.host.invalid", cwd=tmp_path)
    assert (nowhere.returncode, "there is no host" in nowhere.stderr) == (2, True)


def test_what_cannot_be_served_is_said(tmp_path):
    import json

    run = make_run(tmp_path / "run", {"fine": "", "gone": "", "engine": "", "other": ""})
    report = json.loads((run / "report.json").read_text())
    report["rows"][1]["error"] = "it broke"
    report["rows"][2]["not_run"] = "there is no GPU here"
    report["recipe"]["resolved"]["exports"][3]["use"] = "nobodys"
    (run / "report.json").write_text(json.dumps(report))
    with serving(run, log=tmp_path / "log.txt") as server:
        assert [each["export"] for each in server.ask("/v1/files").json] == ["fine"]
        said = server.said()
    assert "gone/optimized/model.txt is left out: it failed in its run" in said
    assert "engine/optimized/model.txt is left out: there is no GPU here" in said
    assert "no plugin of this machine opens a file of colours" in said


def test_one_file_of_a_run_and_runs_of_one_name(tmp_path):
    first, second = (make_run(tmp_path / parent / "run", {"fine": "", "other": ""}) for parent in ("a", "b"))
    with serving(first / "other/optimized/model.txt", second, first, log=tmp_path / "log.txt") as server:
        names = [each["name"] for each in server.ask("/v1/files").json]
    assert names == [
        f"{run}/{export}/optimized/model.txt"
        for run, export in (("run", "other"), ("run-2", "fine"), ("run-2", "other"), ("run", "fine"))
    ]


def test_a_file_that_two_runs_share_is_served_once(tmp_path):
    for name in ("eight", "four"):
        run = make_run(tmp_path / name, {"fine": ""}, sha256="0" * 64)
    with serving(tmp_path / "eight", run, log=tmp_path / "log.txt") as server:
        assert [each["run"] for each in server.ask("/v1/files").json] == ["eight"]
        assert {each["run"] for each in server.ask("/v1/samples").json} == {"eight", "four"}
        assert "four/fine/optimized/model.txt is left out: it is eight/fine/optimized/model.txt again" in server.said()


def test_without_the_extra_it_says_what_to_install(tmp_path):
    run = make_run(tmp_path / "run", {"fine": ""})
    program = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'uvicorn' else found(name, *more)\n"
        f"sys.argv = ['edgeopt', 'serve', {str(run)!r}]\n"
        "from edgeopt.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "edgeopt serve needs uvicorn" in done.stderr
    assert "pip install 'edgeopt[serve]'" in done.stderr
