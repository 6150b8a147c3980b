"""The steps of a run by parallel-ssh, then `git fetch` by a pool of threads. Reads an order, see `overhead.py`."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from pssh.clients import ParallelSSHClient  # type: ignore[import-not-found]  # in the peers' environment alone

with open(sys.argv[1]) as file:
    order = json.load(file)
runs = order["runs"]
client = ParallelSSHClient(
    ["127.0.0.1"] * len(runs),
    user=order["user"],
    port=order["port"],
    pkey=order["key_file"],
    pool_size=order["at_once"],
    num_retries=5,
)
outputs = client.run_command("%s", host_args=[(each["steps"],) for each in runs])
client.join(outputs)
failed = [(output.exit_code, list(output.stderr)) for output in outputs if output.exit_code != 0]
if failed:
    sys.exit(f"{len(failed)} failed: {failed[0]}")
with ThreadPoolExecutor(order["at_once"]) as pool:
    list(pool.map(lambda each: subprocess.run(["sh", "-c", each["fetch"]], check=True), runs))
