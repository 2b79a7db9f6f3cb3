"""An echo server that prints a span for each connection and counters of messages; Ctrl+C ends it.

Usage: python examples/opentelemetry_server.py [PORT], after pip install opentelemetry-sdk
"""

from __future__ import annotations

import sys

import anyio
from opentelemetry import propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import anyws

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
tracer = provider.get_tracer("example")
meters = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())])
messages = meters.get_meter("example").create_counter("websocket.messages")


class Telemetry(anyws.Hooks):
    def opened(self, ws: anyws.Connection) -> None:
        parent = propagate.extract(ws.request.headers)  # of a client that sends traceparent
        ws.data["span"] = tracer.start_span("websocket", parent, trace.SpanKind.SERVER)

    def closed(self, ws: anyws.Connection) -> None:
        ws.data["span"].set_attribute("websocket.close_code", ws.close_code)
        ws.data["span"].set_attribute("websocket.bytes_received", ws.stats.bytes_received)
        ws.data["span"].end()

    def message_received(self, ws: anyws.Connection, message: object) -> None:
        messages.add(1, {"direction": "received"})

    def message_sent(self, ws: anyws.Connection, message: object) -> None:
        messages.add(1, {"direction": "sent"})


async def echo(ws: anyws.Connection) -> None:
    with trace.use_span(ws.data["span"]):  # the parent of those that begin in here
        async for message in ws:
            await ws.send(message)


async def main(port: int) -> None:
    async with anyws.serve(echo, "localhost", port, hooks=Telemetry()) as server:
        print(f"listening on port {server.port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    try:
        anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8765)
    except KeyboardInterrupt:
        meters.shutdown()  # which prints them
