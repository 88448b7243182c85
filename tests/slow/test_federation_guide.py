"""The rehearsal of docs/federation.md, word for word: only its port gives way, where another program has it."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pathoml.testing.loopback import free_port, processes_naming, wait_until

pytestmark = pytest.mark.slow
pytest.importorskip("nvflare")
GUIDE = Path(__file__).parents[2] / "docs" / "federation.md"


def rehearsal() -> str:
    found = re.search(r"<!-- rehearsal -->\n```bash\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    return found.group(1)


def port_is_free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def test_the_rehearsal_of_the_guide_works_word_for_word(tmp_path: Path) -> None:
    commands = rehearsal()
    if not port_is_free(8002):
        commands = commands.replace("port: 8002", f"port: {free_port()}")
    programs, folder = tmp_path / "bin", tmp_path / "rehearsal"
    programs.mkdir()
    folder.mkdir()
    for name, arguments in (("pathoml", "-m pathoml "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        print(done.stdout[-6000:], done.stderr[-3000:])
        assert done.returncode == 0
        assert "FINISHED:COMPLETED" in (folder / "status.txt").read_text()
        assert len(list((folder / "kits" / "coordinator" / "federation").glob("*/package/model.safetensors"))) == 1
        assert done.stdout.count("lines, whole and in order") == 2
        assert "the site fits the plan" in done.stdout
        wait_until(lambda: not processes_naming(folder), "every process has ended", 30)
    finally:
        for process in processes_naming(folder):
            os.kill(process, signal.SIGKILL)
