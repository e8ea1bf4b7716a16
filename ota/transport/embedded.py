"""The embedded broker (amqtt): no set-up, pure Python, for demos, tests and up to about a hundred devices.

Not for fleet numbers: an order of magnitude slower than mosquitto and about 50 kB per client. Users and
access rule come from a plug-in of our own; the anonymous default of the package would make every session
anonymous and lose persistent ones.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amqtt.broker import Broker
from amqtt.contexts import Action, BrokerConfig
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

from .. import topics
from ..errors import OtaError, Reason
from .mosquitto import free_port


class Users(BaseAuthPlugin):  # type: ignore[misc]
    """User name and password; never anonymous."""

    async def authenticate(self, *, session: Any) -> bool | None:
        known = self.config.passwords.get(session.username)
        return known is not None and session.password == known and session.client_id is not None

    @dataclass
    class Config:
        passwords: dict[str, str] = field(default_factory=dict)


class Access(BaseTopicPlugin):  # type: ignore[misc]
    """The access rule of ``topics`` for publishing, subscribing and delivery."""

    async def topic_filtering(
        self, *, session: Any = None, topic: str | None = None, action: Any = None
    ) -> bool | None:
        if session is None or topic is None or session.username is None:
            return False
        if action == Action.PUBLISH:
            return topics.may_publish(session.username, topic)
        # A filter like ota/1/x/down/# lies inside the permitted tree exactly if its beginning does.
        return topics.may_receive(session.username, topic)

    @dataclass
    class Config:
        pass


class EmbeddedBroker:
    """A broker in a thread of its own."""

    def __init__(self, passwords: Mapping[str, str], port: int | None = None) -> None:
        self.port = port or free_port()
        self.passwords = dict(passwords)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broker: Broker | None = None
        self._thread: threading.Thread | None = None
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)
        logging.getLogger("transitions").setLevel(logging.CRITICAL)
        self.start()

    def _config(self) -> BrokerConfig:
        here = __name__
        return BrokerConfig.from_dict(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
                "plugins": {
                    f"{here}.Users": {"passwords": self.passwords},
                    f"{here}.Access": {},
                },
            }
        )

    def start(self) -> None:
        self._crashed = False
        ready = threading.Event()
        failed: list[BaseException] = []

        def run() -> None:
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            self._loop = loop
            try:
                self._broker = Broker(self._config(), loop=loop)
                loop.run_until_complete(self._broker.start())
            except BaseException as error:
                failed.append(error)
                ready.set()
                return
            ready.set()
            loop.run_forever()
            if not self._crashed:
                loop.run_until_complete(self._broker.shutdown())
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=1.0))
            loop.close()

        self._thread = threading.Thread(target=run, name="embedded-broker", daemon=True)
        self._thread.start()
        if not ready.wait(15) or failed:
            raise OtaError(Reason.DISCONNECTED, f"embedded broker did not start: {failed}")

    def stop(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop = None
            self._thread = None

    def kill(self) -> None:
        """As a crash: connections break off at once; sessions and retained messages lived in memory only."""
        loop = self._loop
        if loop is None:
            return

        broker = self._broker

        def break_off() -> None:
            for server in broker._servers.values() if broker is not None else ():
                server.instance.close()
            for transport in list(loop._transports.values()):  # type: ignore[attr-defined]
                transport.abort()

        self._crashed = True
        loop.call_soon_threadsafe(break_off)
        self.stop()

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
