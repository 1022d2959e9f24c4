"""The processes that own the server's devices, as the front sees them: started, watched, started again.

Workers send the inner loop of their fits to the device they are given; one process gathers what comes from all of
them. A device that is lost takes its process with it (exit status 4), and another is started.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bodyfit.errors import DeviceError, DeviceLostError, InputError
from bodyfit.fit.device import LOST
from bodyfit.fit.device_host import DeviceHost

log = logging.getLogger("bodyfit.service.devices")

LOOK_S = 0.1
COUNTS_S = 2.0
ANSWER_S = 30.0
"""a process that does not say in so long what it has done is killed"""
LONGEST_BACKOFF_S = 30.0
YOUNG_S = 60.0
"""who dies before that dies again: not in a tight loop"""
Counts = dict[str, int]


class DevicePool:
    """One process for each device.

    Args:
        devices: their names; none where fits compute on the CPU.
        batch_s: how long a job may wait for others.
        on_restart: told (role, reason) when a process has to be replaced.
        on_change: called when a device has come or gone.
        on_counts: told a device's name and what its process has done.
    """

    def __init__(
        self,
        devices: list[str],
        *,
        batch_s: float,
        on_restart: Callable[[str, str], None],
        on_change: Callable[[], None],
        on_counts: Callable[[str, Counts], None],
    ) -> None:
        self.hosts = [DeviceHost(name, wait_s=batch_s) for name in devices]
        self._ready, self._began = [False] * len(devices), [False] * len(devices)
        self._on_restart, self._on_change, self._on_counts = on_restart, on_change, on_counts
        self._first = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def there(self, address: str) -> bool:
        """Whether the device that listens there is ready; True for no address: none is needed."""
        return not address or any(r and h.address == address for h, r in zip(self.hosts, self._ready, strict=True))

    def start(self) -> None:
        """Starts all of them."""
        self._tasks = [asyncio.get_running_loop().create_task(self._keep(n)) for n in range(len(self.hosts))]
        if not self.hosts:
            self._first.set()

    async def ready(self) -> None:
        """Waits until every device has been ready once."""
        await self._first.wait()

    async def _keep(self, number: int) -> None:
        """One device's process, for as long as the server lives."""
        host, failures = self.hosts[number], 0
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                host.start()
                while not await asyncio.to_thread(host.ready, LOOK_S):
                    pass
            except (DeviceError, OSError) as error:
                failures += 1
                log.error("device cannot be used", extra={"device": host.device, "why": str(error)})
            else:
                pid = host.process.pid if host.process is not None else None
                log.info("device ready", extra={"device": host.device, "starts": host.starts, "pid": pid})
                self._tell(number, there=True)
                try:
                    await self._watch(host)
                finally:
                    self._tell(number, there=False)
                failures = failures + 1 if clock() - began < YOUNG_S else 0
                code = host.process.exitcode if host.process is not None else None
                how = "device lost" if code == LOST else f"signal {-code}" if code and code < 0 else "ended"
                log.error("device's process ended", extra={"device": host.device, "how": how})
                self._on_restart("device", how)
            await asyncio.sleep(min(LONGEST_BACKOFF_S, 0.5 * 2.0**failures) if failures else 0.0)

    async def _watch(self, host: DeviceHost) -> None:
        """Until its process has ended; asks now and then what it has done."""
        from bodyfit.fit.device_process import RemoteSolver  # brings the kernels, which the front has no other use for

        solver = RemoteSolver(host.address, host.device)
        looked = float("-inf")
        loop = asyncio.get_running_loop()
        while host.alive:
            if loop.time() - looked > COUNTS_S:
                looked = loop.time()
                try:
                    counts = await asyncio.wait_for(asyncio.to_thread(solver.counts), ANSWER_S)
                    self._on_counts(host.device, counts)
                except TimeoutError:
                    log.error("device's process does not answer", extra={"device": host.device})
                    host.kill()
                except (DeviceLostError, RuntimeError, InputError, KeyError):
                    log.debug("device's process told nothing", extra={"device": host.device})
            await asyncio.sleep(LOOK_S)

    def _tell(self, number: int, *, there: bool) -> None:
        self._ready[number] = there
        self._began[number] |= there
        if all(self._began):
            self._first.set()
        self._on_change()

    async def close(self) -> None:
        """Ends all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for host in self.hosts:
            await asyncio.to_thread(host.close)
