// A market maker outside the node: quotes both sides at the best prices, through docs/strategy-protocol.md in JSON.
//
//     node quoter.mjs DATA_DIR INSTANCE [FILLS]      says bye after so many fills, or on Ctrl-C

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { Push, Subscriber } from "zeromq";

const [dataDir, instance, most = "Infinity"] = process.argv.slice(2);
const door = resolve(dataDir, "clients", instance);
const token = readFileSync(`${door}.token`, "utf8").trim();
const SIZE = "0.01"; // money is text: a float is not exact
const HELLO_EVERY_MS = 20;
const BRACE = 0x7b; // what JSON begins with here
const SILENT_MS = 2000; // the host says something four times a second

const events = new Subscriber({ linger: 0, receiveTimeout: HELLO_EVERY_MS });
const turns = new Push({ linger: 1000, immediate: true, sendTimeout: 100 }); // kept for nobody who comes later
events.connect(`ipc://${door}.events.sock`);
events.subscribe(token);
turns.connect(`ipc://${door}.turns.sock`);
const say = (message) => turns.send([token, JSON.stringify(message)]);

let run, turn, handled, state, requests, heardMs;
let isOver = false;
process.on("SIGINT", () => (isOver = true)).on("SIGTERM", () => (isOver = true));

function beginAnew() {
  [run, turn, handled, heardMs] = [randomUUID(), null, 0, Date.now()]; // no turn: not welcome yet
}

function onEvent(event) {
  if (event.type === "book") {
    const { symbol, bid, ask } = event.data;
    requests.push({ type: "quote", symbol, quotes: [{ bid, bid_qty: SIZE, ask, ask_qty: SIZE }] });
  } else if (event.type === "reports") {
    for (const report of event.reports) {
      if (report.type !== "fill") continue;
      const { side, qty, price } = report.data;
      state.fills += 1;
      console.log(`${side} ${qty} at ${price}, fill ${state.fills}`);
    }
    isOver ||= state.fills >= Number(most);
  } else if (event.type === "stop") {
    isOver = true;
  }
}

async function onMessage(message) {
  if ((message.run ?? run) !== run) return; // an answer to somebody else
  if (message.type === "refused" && message.reason === "LATE") return beginAnew(); // it was stopped for a while
  if (message.type === "refused") throw new Error(`${message.reason}: ${message.detail}`);
  if (message.type === "welcome") {
    turn = message.next_turn - 1;
    state = message.state ?? { fills: 0 }; // what an earlier run of this program saved
    console.log(`trading ${message.symbols} as ${message.instance}, ${state.fills} fills so far`);
  } else if (message.type === "events" && turn !== null) {
    if (message.seq - message.events.length !== handled) return beginAnew(); // a gap
    requests = [];
    message.events.forEach(onEvent);
    handled = message.seq;
    await say({ type: "turn", seq: ++turn, handled, requests, state });
  } else if (message.type === "ack" && message.resend) {
    beginAnew();
  }
}

beginAnew();
while (!isOver) {
  try {
    const [, body] = await events.receive();
    heardMs = Date.now();
    if (body[0] === BRACE) await onMessage(JSON.parse(body));
    else if (turn !== null) beginAnew(); // MessagePack: said to another program, which has the place by now
  } catch (error) {
    if (error.code !== "EAGAIN") throw error; // nothing came for a while
    if (turn !== null && Date.now() - heardMs > SILENT_MS) beginAnew();
  }
  if (turn === null) {
    const hello = { type: "hello", protocol: 1, run, client: "node example", subscribe: ["book"] };
    await say(hello).catch(() => {}); // nobody listens yet: said again
  }
}
if (turn !== null) await say({ type: "bye", reason: "done", run });
events.close();
turns.close();
