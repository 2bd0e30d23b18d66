"""Django Channels with its Redis layer, on uvicorn: presence as one would write it there. ``channels_peer.py PORT``"""

import json
import sys
from typing import Any

import django
import jwt
import uvicorn
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path
from work import REDIS_URL, PresenceKeys, account_of, now, welcome

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [REDIS_URL], "capacity": 10_000},
        }
    },
    ALLOWED_HOSTS=["*"],
)
django.setup()
presence = PresenceKeys()


class Edge(AsyncWebsocketConsumer):
    """One socket of a mechanic or a customer."""

    account_id = ""

    async def connect(self) -> None:
        headers = dict(self.scope["headers"])
        try:
            self.account_id = account_of(headers.get(b"authorization", b"").decode())
        except jwt.PyJWTError:
            await self.close()
            return
        await self.accept()
        if self.scope["path"].endswith("mechanic"):
            await presence.renew(self.account_id)
            await self.tell(presence.status(self.account_id, True))
            await self.channel_layer.group_add("mechanics", self.channel_name)
        await self.say("welcome", **welcome(self.account_id))

    async def disconnect(self, code: int) -> None:
        if self.account_id:
            await presence.leave(self.account_id)
            await self.channel_layer.group_discard("mechanics", self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        message = json.loads(text_data or "{}")
        kind = message["type"]
        if kind == "heartbeat":
            await presence.renew(self.account_id)
            await self.say("heartbeat_ack", server_time=now())
        elif kind == "set_availability":
            status = await presence.set_on_duty(self.account_id, message["on_duty"])
            await self.say("availability", on_duty=message["on_duty"], availability=status["availability"])
            await self.tell(status)
        elif kind == "watch":
            for mechanic_id in message["mechanic_ids"]:
                await self.channel_layer.group_add(f"watch.{mechanic_id}", self.channel_name)
        elif kind == "broadcast":
            await self.channel_layer.group_send("mechanics", {"type": "offer.made", "offer": message})

    async def tell(self, status: dict[str, Any]) -> None:
        await self.channel_layer.group_send(f"watch.{self.account_id}", {"type": "status.changed", "status": status})

    async def status_changed(self, event: dict[str, Any]) -> None:
        await self.say("status", **event["status"])

    async def offer_made(self, event: dict[str, Any]) -> None:
        await self.say("offer", offer=event["offer"])

    async def say(self, kind: str, **members: object) -> None:
        await self.send(text_data=json.dumps({"type": kind, **members}, separators=(",", ":")))


application = ProtocolTypeRouter(
    {"websocket": URLRouter([path("ws/mechanic", Edge.as_asgi()), path("ws/customer", Edge.as_asgi())])}
)

if __name__ == "__main__":
    uvicorn.run(
        application, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", backlog=4096, lifespan="off"
    )
