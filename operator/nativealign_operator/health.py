"""/healthz, /readyz and /metrics. Healthy means that the loops turn, not that the process lives.

A loop beats each time it comes round. One that has not for its limit makes /healthz fail, and the kubelet restarts the container.
An apiserver that does not answer is no reason: every loop goes on trying, and beats. Ready is a replica that stands by while
another holds the Lease, and a leader that was able to list all that it watches.
"""

import asyncio

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from nativealign_operator.metrics import Metrics


class Health:
    """When each loop came round last."""

    def __init__(self) -> None:
        self._beats: dict[str, tuple[float, float]] = {}
        self.ready = False

    def beat(self, name: str, limit: float) -> None:
        """The loop `name` has come round, and will again within `limit` seconds."""
        self._beats[name] = (asyncio.get_running_loop().time(), limit)

    def keep_only(self, *names: str) -> None:
        """All other loops have ended, as they do with a lost Lease."""
        self._beats = {name: beat for name, beat in self._beats.items() if name in names}

    def late(self) -> list[str]:
        """Loops that should have come round."""
        now = asyncio.get_running_loop().time()
        return sorted(name for name, (at, limit) in self._beats.items() if now - at > limit)


async def serve(health: Health, metrics: Metrics, port: int) -> web.AppRunner:
    """Serves until the runner is cleaned up."""

    async def healthz(_: web.Request) -> web.Response:
        late = health.late()
        return web.Response(text=f"late: {', '.join(late)}\n" if late else "ok\n", status=503 if late else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n" if health.ready else "starting\n", status=200 if health.ready else 503)

    async def prometheus(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", prometheus)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
