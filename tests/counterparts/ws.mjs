// One connection of Node's ws, as a client or as a server, told by lines of JSON what to do.
//
//     node ws.mjs MODULES client PORT OPTIONS
//     node ws.mjs MODULES server OPTIONS
//
// MODULES is the folder that has the package ws, OPTIONS an object for its constructor. Each line of
// the standard input is a command, each line of the standard output says what happened. Data are in
// base64. The end of the standard input ends it.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, role, ...rest] = process.argv.slice(2);
const { WebSocket, WebSocketServer } = createRequire(`${modules}/`)("ws");
const options = JSON.parse(rest.pop());

const tell = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
const decode = (data) => Buffer.from(data, "base64");

function follow(socket) {
  const opened = () =>
    tell({ event: "open", extensions: socket.extensions, protocol: socket.protocol });
  if (socket.readyState === WebSocket.OPEN) opened();
  else socket.on("open", opened);
  socket.on("message", (data, binary) =>
    tell({ event: "message", binary, data: data.toString("base64") }));
  socket.on("ping", (data) => tell({ event: "ping", data: data.toString("base64") }));
  socket.on("pong", (data) => tell({ event: "pong", data: data.toString("base64") }));
  socket.on("close", (code, reason) => tell({ event: "close", code, reason: reason.toString() }));
  socket.on("error", (error) => tell({ event: "error", text: String(error) }));
  createInterface({ input: process.stdin }).on("line", (line) => obey(socket, JSON.parse(line)));
}

function obey(socket, { command, data, binary, fin, code, reason }) {
  if (command === "send") socket.send(decode(data), { binary, fin }, () => {});
  else if (command === "ping") socket.ping(decode(data));
  else if (command === "close") socket.close(code, reason);
  else if (command === "abort") socket.terminate();
  else throw new Error(`unknown command ${command}`);
}

process.stdin.on("end", () => process.exit(0));
if (role === "client") {
  follow(new WebSocket(`ws://127.0.0.1:${rest[0]}/`, options.protocols ?? [], options));
} else {
  const { protocol, ...others } = options;
  if (protocol) others.handleProtocols = () => protocol;
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, ...others });
  server.on("listening", () => tell({ event: "listening", port: server.address().port }));
  server.on("connection", follow);
}
