"""The one way of calling the apiserver. Everything that the operator reads or writes goes through here.

Objects are plain JSON. Every request has a time limit, so that a dead connection ends a reconcile and not the operator.
"""

import json
import os
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

Json = dict[str, Any]

FIELD_MANAGER = "nativealign-operator"
JSON, APPLY = "application/json", "application/apply-patch+yaml"
REQUEST_SECONDS = 15
PAGE = 100
"""Objects in one answer to a list; large ones leave holes in the memory, which grows by them."""


class ApiError(Exception):
    """An answer that is no success, or none at all (code 0)."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message


async def configuration() -> Configuration:
    """The pod's own service account; elsewhere the kubeconfig."""
    found = Configuration()
    try:
        load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]
    except ConfigException:
        await load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=found)  # type: ignore[no-untyped-call]
    return found


class Cluster:
    """An apiserver as one user sees it."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def get(self, path: str) -> Json:
        return await self._request("GET", path)

    async def text(self, path: str, query: dict[str, str]) -> str:
        """An answer that is no JSON, e.g. a log."""
        return await self._send("GET", _with_query(path, query), None, JSON)

    async def pages(self, path: str, label_selector: str = "", field_selector: str = "") -> AsyncIterator[Json]:
        """A list in pages: `items` without kind and apiVersion, as lists are, and `metadata.resourceVersion`, which all share."""
        query = {"limit": str(PAGE), "labelSelector": label_selector, "fieldSelector": field_selector}
        while True:
            page = await self._request("GET", path, query=query)
            yield page
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return

    async def create(self, path: str, value: Json) -> Json:
        """Raises ApiError 409 where one of that name exists."""
        return await self._request("POST", path, value, query={"fieldManager": FIELD_MANAGER})

    async def replace(self, path: str, value: Json) -> Json:
        """Raises ApiError 409 where the object has changed since it was read."""
        return await self._request("PUT", path, value, query={"fieldManager": FIELD_MANAGER})

    async def apply_status(self, path: str, value: Json) -> Json:
        """Server-side apply of the status. With `metadata.resourceVersion` in it, 409 where the object has changed since."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("PATCH", f"{path}/status", value, query=query, form=APPLY)

    async def delete(self, path: str, uid: str | None = None, propagation: str = "Background") -> None:
        """Deletes the object and what it owns, which goes first if `Foreground`. One that is gone is left alone, and so is another
        of that name.
        """
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", path, options)
        except ApiError as error:
            if error.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    async def _request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: dict[str, str] | None = None,
        form: str = JSON,
    ) -> Json:
        text = await self._send(method, _with_query(path, query or {}), body, form)
        try:
            value: Json = json.loads(text)
        except ValueError:
            raise ApiError(0, "NoJson", f"{method} {path}: the answer is no JSON but {text[:200]!r}") from None
        return value

    async def _send(self, method: str, resource: str, body: Json | None, form: str) -> str:
        headers = {"Accept": "*/*", "Content-Type": form}
        try:
            _, url, headers, content, _ = await self._client.param_serialize(
                method, resource, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            answer = await self._client.call_api(method, url, headers, content, _request_timeout=REQUEST_SECONDS)
            text = await answer.read()  # type: ignore[no-untyped-call]
        except ApiException as error:
            raise _api_error(error) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, "Unreachable", f"{method} {resource}: {type(error).__name__} {error}") from None
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise _refused(answer.status, text)
        return str(text.decode(errors="replace"))


def _with_query(path: str, query: dict[str, str]) -> str:
    """Without what is empty."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def _api_error(error: ApiException) -> ApiError:
    return _refused(error.status or 0, error.body or str(error.reason))


def _refused(code: int, body: Any) -> ApiError:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        status = json.loads(text)
        return ApiError(code, str(status.get("reason", "")), str(status.get("message", "")))
    except (ValueError, AttributeError):
        return ApiError(code, "", text[:500])
