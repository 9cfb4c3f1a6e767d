"""The AI SDK face: what `useChat` needs of a server, by way of `@durable-streams/aisdk-transport`."""

from holdfast.server.aisdk.chat_streams import ChatStreams
from holdfast.server.aisdk.chats import chat_routes

__all__ = ["ChatStreams", "chat_routes"]
