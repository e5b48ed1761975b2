"""The log of a pod, read piece by piece: each line once, whatever the kubelet rotates. Called by remote."""

from nativealign_operator.cluster import ApiError, Cluster, Json
from nativealign_operator.paths import path_of

OVER = ("Succeeded", "Failed")


class PodLog:
    """How far the log of one pod was read."""

    def __init__(self) -> None:
        self._last = ""
        """Time of the last line, as a kubelet writes it: RFC 3339, always with nine digits of a second."""
        self._over = False
        self._trouble = ""

    async def read(self, cluster: Cluster, namespace: str, pod: Json) -> list[str]:
        """The lines since the last call; where its node does not give them, once, a line that says so."""
        if self._over:
            return []
        query = {"timestamps": "true", "sinceTime": to_seconds(self._last)}
        try:
            text = await cluster.text(f"{path_of('Pod', namespace, pod['metadata']['name'])}/log", query)
        except ApiError as error:
            return self._without(error)
        self._over, self._trouble = pod["status"].get("phase") in OVER, ""
        found = lines_after(self._last, text)
        self._last = found[-1][0] if found else self._last
        return [line for _, line in found]

    def _without(self, error: ApiError) -> list[str]:
        if error.code in (401, 403):
            raise error
        if error.code in (400, 404) or error.message == self._trouble:  # it has not started, is gone, or was told of
            return []
        self._trouble = error.message
        return [f"(no log: {error.message})"]


def lines_after(last: str, text: str) -> list[tuple[str, str]]:
    """(time, line) of the lines of a log with timestamps that are later than a time.

    Of a bar that draws itself anew, which is one line, it is what the bar shows last.
    """
    stamped = (line.partition(" ")[::2] for line in text.split("\n") if line)
    return [(time, line.rstrip("\r").rpartition("\r")[2]) for time, line in stamped if time > last]


def to_seconds(time: str) -> str:
    """A time without its fraction, from which a log can be asked for."""
    whole, _, fraction = time.partition(".")
    return whole + fraction.lstrip("0123456789")
