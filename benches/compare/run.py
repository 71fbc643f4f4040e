#!/usr/bin/env python3
"""Compares the gateway with nginx as plain pass-through, side by side in one run.

Everything runs on loopback: a static nginx as upstream, nginx as proxy, the gateway in release mode with its real
policy and ledger, and wrk as closed-loop load. The two are measured in turn, several rounds, so that what the
machine does besides hits both. Prints medians and ratios as a table, and JSON on request.

What is measured: requests per second, p50 and p99 as wrk sees them, and CPU microseconds per request of the
proxy alone (user and system time of its processes from /proc, before and after, divided by requests).
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")

POLICY = """package gateway.bench

permit contains "within_limit" if {
    input.action == "charge.create"
    is_number(input.request.body.amount)
    limit := data.ref.limits[input.request.body.currency]
    input.request.body.amount <= limit
    input.request.body.counterparty in data.ref.counterparties
}

deny contains {"code": "over_limit", "message": "The amount is over the limit of its currency."} if {
    is_number(input.request.body.amount)
    limit := data.ref.limits[input.request.body.currency]
    input.request.body.amount > limit
}

deny contains "role_not_allowed" if {
    input.actor.claims.role != "buyer"
}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, process, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on {port}")


def body(bytes_wanted=600, amount=1200):
    document = {
        "amount": amount,
        "counterparty": "party-500",
        "currency": "eur",
        "metadata": {"order": "6735", "source": "bench"},
        "note": "",
    }
    document["note"] = "n" * (bytes_wanted - len(json.dumps(document, separators=(",", ":"))))
    return json.dumps(document, separators=(",", ":"))


def nginx(directory, name, server):
    config = directory / f"{name}.conf"
    config.write_text(
        f"""daemon off; worker_processes 2; pid {directory}/{name}.pid; error_log {directory}/{name}.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 256k;
  client_body_temp_path {directory}/{name}-body; proxy_temp_path {directory}/{name}-proxy;
  fastcgi_temp_path {directory}/{name}-f; uwsgi_temp_path {directory}/{name}-u; scgi_temp_path {directory}/{name}-s;
  {server}
}}
"""
    )
    return subprocess.Popen(["nginx", "-c", str(config)], stdout=subprocess.DEVNULL)


def start_upstream(directory, port):
    answer = json.dumps({"id": "ch_1", "status": "succeeded", "pad": "x" * 160})
    return nginx(
        directory,
        "upstream",
        f"server {{ listen 127.0.0.1:{port}; default_type application/json; location / {{ return 200 '{answer}'; }} }}",
    )


def start_nginx(directory, port, upstream):
    return nginx(
        directory,
        "proxy",
        f"""upstream u {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; proxy_http_version 1.1;
    proxy_set_header Connection ""; }} }}""",
    )


def start_gateway(directory, port, admin, upstream, key):
    policies = directory / "policies"
    (policies / "bench").mkdir(parents=True)
    (policies / "ref").mkdir()
    (policies / "bench" / "bench.rego").write_text(POLICY)
    (policies / "ref" / "limits.json").write_text(json.dumps({"eur": 5000, "usd": 6000}))
    (policies / "ref" / "counterparties.json").write_text(json.dumps([f"party-{n}" for n in range(1000)]))
    secret = directory / "secret"
    secret.write_text("upstream-secret")
    secret.chmod(0o600)
    binary = ROOT / "target" / "release" / "interlock"
    log_key = directory / "log.key"
    subprocess.run(
        [binary, "keys", "generate", "--origin", "bench.example/log", "--out", log_key],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    config = directory / "interlock.yaml"
    config.write_text(
        f"""log_origin: bench.example/log
ledger: {{ dir: ./ledger, signing_key: ./log.key }}
policy: {{ dir: ./policies }}
admin: {{ listen: "127.0.0.1:{admin}" }}
telemetry: {{ format: json, level: error }}
limits: {{ requests_in_flight_max: 4096, evaluation_threads: 2 }}
listeners:
  - {{ name: main, address: "127.0.0.1:{port}" }}
api_keys:
  - {{ id: agent-7, prefix: {key[:12]}, sha256: {hashlib.sha256(key.encode()).hexdigest()}, claims: {{ role: buyer }} }}
surfaces:
  - name: payments
    listener: main
    package: gateway.bench
    identity: {{ api_key: {{ headers: [authorization] }} }}
    upstream: {{ url: "http://127.0.0.1:{upstream}", leases_max: 1024 }}
    credential: {{ name: key, header: authorization, prefix: "Bearer ", from_file: ./secret }}
    routes:
      - {{ action: charge.create, method: POST, path: /v1/charges, body: json, headers: [accept, idempotency-key] }}
"""
    )
    return subprocess.Popen([binary, "run", "--config", config], stdout=subprocess.DEVNULL)


def cpu_seconds(pid):
    """User and system time of a process and its children that still run."""
    pids = [pid] + [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    total = 0
    for one in pids:
        fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def rss_mib(pid):
    pids = [pid] + [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    kib = sum(
        int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{one}/status").read_text()).group(1)) for one in pids
    )
    return kib / 1024


LUA = """
wrk.method = "POST"
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
wrk.headers["Accept"] = "application/json"
wrk.headers["User-Agent"] = "bench/1"
wrk.headers["X-Request-Id"] = "0af7651916cd43dd8448eb211c80319c"
wrk.headers["Accept-Language"] = "en"
wrk.headers["X-Agent"] = "agent-7"
wrk.headers["X-Session"] = "s-1"
wrk.headers["Idempotency-Key"] = "bench-1"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %f %f %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.timeout, e.status))
end
"""


def load(directory, port, connections, seconds, text, key, expect_errors):
    script = directory / "load.lua"
    script.write_text(LUA.format(body=json.dumps(text), key=key))
    out = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/v1/charges"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = re.search(r"^RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+) (\d+)$", out, re.M)
    requests, micros, p50, p99, broken, status = (float(x) for x in found.groups())
    if broken or (bool(status) != expect_errors):
        sys.exit(f"load on {port} had {broken:.0f} broken and {status:.0f} refused of {requests:.0f} requests\n{out}")
    return {"requests": requests, "rate": requests / (micros / 1e6), "p50_us": p50, "p99_us": p99}


def measure(process, directory, port, connections, seconds, text, key, expect_errors=False):
    load(directory, port, connections, 1, text, key, expect_errors)
    before = cpu_seconds(process.pid)
    row = load(directory, port, connections, seconds, text, key, expect_errors)
    row["cpu_us"] = (cpu_seconds(process.pid) - before) * 1e6 / row["requests"]
    row["rss_mib"] = rss_mib(process.pid)
    return row


WORKLOADS = [
    # name, connections, body, refused by the gateway
    ("1 connection", 1, body(), False),
    ("32 connections", 32, body(), False),
    ("128 connections", 128, body(), False),
    ("64 KiB, 32 connections", 32, body(64 * 1024), False),
    ("refused by policy, 32 connections", 32, body(amount=9_000_000), True),
    ("refused as malformed, 32 connections", 32, body()[:-1] + ',"amount":1}', True),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures here")
    parser.add_argument("--only", help="workloads whose name contains this")
    arguments = parser.parse_args()
    for program in ("nginx", "wrk"):
        if not shutil.which(program):
            sys.exit(f"{program} is missing: `make bench` installs it")

    directory = pathlib.Path(tempfile.mkdtemp(prefix="interlock-bench-"))
    directory.chmod(0o755)
    key = "ilk_bench000_" + secrets.token_urlsafe(32)
    ports = {name: free_port() for name in ("upstream", "nginx", "gateway", "admin")}
    processes = {}
    try:
        processes["upstream"] = start_upstream(directory, ports["upstream"])
        processes["nginx"] = start_nginx(directory, ports["nginx"], ports["upstream"])
        processes["gateway"] = start_gateway(directory, ports["gateway"], ports["admin"], ports["upstream"], key)
        for name, process in processes.items():
            wait_for(ports[name], process)
        rows = []
        for name, connections, text, refused in WORKLOADS:
            if arguments.only and arguments.only not in name:
                continue
            measured = {"nginx": [], "gateway": []}
            for _ in range(arguments.rounds):
                for peer in measured:
                    measured[peer].append(
                        measure(
                            processes[peer],
                            directory,
                            ports[peer],
                            connections,
                            arguments.seconds,
                            text,
                            key,
                            refused and peer == "gateway",
                        )
                    )
            rows.append({"workload": name, "rounds": measured, "medians": {p: medians(m) for p, m in measured.items()}})
            show(rows[-1], first=len(rows) == 1)
        stop(processes.pop("gateway"))
        verify(directory)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1))
    finally:
        for process in processes.values():
            stop(process)
        shutil.rmtree(directory, ignore_errors=True)


def medians(rounds):
    return {figure: statistics.median(r[figure] for r in rounds) for figure in rounds[0]}


def show(row, first):
    if first:
        print(
            f"{'workload':38} {'peer':8} {'req/s':>8} {'p50 us':>8} {'p99 us':>8} {'CPU us/req':>11} {'spread':>13} "
            f"{'RSS MiB':>8}  ratio of CPU"
        )
    base = row["medians"]["nginx"]["cpu_us"]
    for peer, m in row["medians"].items():
        cpus = [r["cpu_us"] for r in row["rounds"][peer]]
        spread = f"{min(cpus):.1f}-{max(cpus):.1f}"
        print(
            f"{row['workload']:38} {peer:8} {m['rate']:8.0f} {m['p50_us']:8.0f} {m['p99_us']:8.0f} "
            f"{m['cpu_us']:11.1f} {spread:>13} {m['rss_mib']:8.1f}  {m['cpu_us'] / base:.2f}",
            flush=True,
        )


def verify(directory):
    """The log of the load is a log like any other: it must verify."""
    binary = ROOT / "target" / "release" / "interlock"
    ran = subprocess.run(
        [binary, "verify", "--log", directory / "ledger", "--key", directory / "log.key.vkey"],
        capture_output=True,
        text=True,
    )
    print(ran.stdout.strip().splitlines()[-1] if ran.stdout.strip() else ran.stderr)
    if ran.returncode != 0:
        sys.exit(f"the log of this run does not verify: exit {ran.returncode}\n{ran.stdout}{ran.stderr}")


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    main()
