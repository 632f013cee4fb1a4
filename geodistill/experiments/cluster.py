"""Jobs on a Dask cluster: connect, check that its workers see a folder, make each job once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from geodistill.errors import InputError, first_names

CONNECT_SECONDS = 10
"""To wait for a Dask scheduler."""


def connect(address: str) -> Any:
    """A client of a Dask scheduler.

    Args:
        address: such as tcp://host:8786.

    Raises:
        InputError: none answers at the address.
    """
    from distributed import Client
    from distributed.comm.addressing import parse_address, parse_host_port

    try:
        host_and_port = parse_host_port(parse_address(address)[1])
        socket.create_connection(host_and_port, CONNECT_SECONDS).close()  # before an event loop
        return Client(address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:  # none there, no address, TLS without keys
        raise InputError(
            f"scheduler is {address!r}; no Dask scheduler answers there, "
            "expected an address such as tcp://host:8786"
        ) from error


def check_common_folder(address: str, folder: Path) -> None:
    """Raise InputError unless every worker of a cluster sees a folder of this machine.

    Args:
        address: of the scheduler.
        folder: that exists here.
    """
    with connect(address) as client:
        sees = client.run(os.path.isdir, str(folder))
    if not sees:
        raise InputError(f"scheduler {address} has no worker; start some with `dask worker`")
    if blind := [worker for worker, is_there in sees.items() if not is_there]:
        raise InputError(
            f"scheduler {address} has workers that do not see {folder}: {first_names(blind)}; "
            "expected a disk that all machines mount at the same path"
        )


def on_cluster(
    client: Any, jobs: Sequence[Any], make: Callable[[Any], Any]
) -> Iterator[tuple[Any, Any]]:
    """Each job with what `make` returned for it, as they come: workers need no common disk.

    `distributed` gives the job of a dead worker to another one, a few times. The jobs that killed
    every worker are named in an InputError at the end.

    Args:
        client: of the cluster.
        jobs: each with a `run_id` and a `label`.
        make: is sent to a worker with each job.

    Raises:
        InputError: the scheduler goes away, or a job kills its workers.
    """
    crashed = yield from _submit(client, jobs, make)
    if len(crashed) > 1:  # a worker that dies puts all its runs under suspicion: one by one
        suspects, crashed = crashed, []
        for job in suspects:
            crashed += yield from _submit(client, [job], make)
    if crashed:
        raise InputError(
            f"{', '.join(job.label for job in crashed)}: every Dask worker that was given it died "
            "(of too little memory?); the other runs are stored, the same command tries it again"
        )


def _submit(
    client: Any, jobs: Sequence[Any], make: Callable[[Any], Any]
) -> Generator[tuple[Any, Any], None, list[Any]]:
    """Yields each job with its result; returns the jobs whose workers died too often."""
    from distributed import KilledWorker
    from distributed import as_completed as completed

    futures = {client.submit(make, job, key=job.run_id): job for job in jobs}
    crashed = []
    # Fetched as soon as it is there: `future.result()` waits, and all others with it, for a result
    # that was lost with its worker meanwhile.
    results = completed(futures, with_results=True, raise_errors=False)  # type: ignore[no-untyped-call]
    for future, result in results:
        job, status = futures.pop(future), future.status
        del future  # the scheduler forgets the run: not made again when its worker dies
        if status == "finished":
            yield job, result
        elif not isinstance(result, tuple):  # cancelled
            raise InputError(
                "the Dask scheduler went away; finished runs are kept, the same command continues"
            )
        elif isinstance(result[1], KilledWorker):
            crashed.append(job)
        else:
            raise result[1].with_traceback(result[2])
    return crashed
