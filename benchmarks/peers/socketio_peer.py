"""python-socketio with its Redis manager, on uvicorn: presence as one would write it there. ``socketio_peer.py PORT``"""

import sys
from typing import Any

import jwt
import socketio
import uvicorn
from work import REDIS_URL, PresenceKeys, account_of, now, welcome

presence = PresenceKeys()
sio = socketio.AsyncServer(
    async_mode="asgi", transports=["websocket"], client_manager=socketio.AsyncRedisManager(REDIS_URL)
)
# ignore_queue: what is for the very socket that asked need not travel through Redis to all servers.


@sio.event
async def connect(sid: str, environ: dict[str, Any]) -> None:
    try:
        account_id = account_of(environ.get("HTTP_AUTHORIZATION", ""))
    except jwt.PyJWTError as error:
        raise socketio.exceptions.ConnectionRefusedError("unauthenticated") from error
    await sio.save_session(sid, {"account_id": account_id})
    if "role=mechanic" in environ.get("QUERY_STRING", ""):
        await presence.renew(account_id)
        await sio.emit("status", presence.status(account_id, True), room=f"watch:{account_id}")
        await sio.enter_room(sid, "mechanics")
    await sio.emit("welcome", welcome(account_id), to=sid, ignore_queue=True)


@sio.event
async def disconnect(sid: str, reason: str) -> None:
    await presence.leave((await sio.get_session(sid))["account_id"])


@sio.event
async def heartbeat(sid: str, data: dict[str, Any]) -> None:
    await presence.renew((await sio.get_session(sid))["account_id"])
    await sio.emit("heartbeat_ack", {"server_time": now()}, to=sid, ignore_queue=True)


@sio.event
async def set_availability(sid: str, data: dict[str, Any]) -> None:
    account_id = (await sio.get_session(sid))["account_id"]
    status = await presence.set_on_duty(account_id, data["on_duty"])
    await sio.emit(
        "availability", {"on_duty": data["on_duty"], "availability": status["availability"]}, to=sid, ignore_queue=True
    )
    await sio.emit("status", status, room=f"watch:{account_id}")


@sio.event
async def watch(sid: str, data: dict[str, Any]) -> None:
    for mechanic_id in data["mechanic_ids"]:
        await sio.enter_room(sid, f"watch:{mechanic_id}")


@sio.event
async def broadcast(sid: str, data: dict[str, Any]) -> None:
    await sio.emit("offer", {"offer": data}, room="mechanics")


if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(sio),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="critical",
        backlog=4096,
        lifespan="off",
    )
