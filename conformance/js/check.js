// How a check is written, run and reported; and how the broker is restarted.
'use strict';
const net = require('node:net');

const host = process.env.BROKER_HOST || '127.0.0.1';
const port = Number(process.env.BROKER_PORT || 5672);
const DEADLINE = 20_000;
const checks = [];
let counter = 0;

/** Registers a check. */
function check(name, action) {
  checks.push({ name, action });
}

/** A name no other check uses. */
function fresh(prefix = 'q') {
  counter += 1;
  return `${prefix}-${process.pid}-${counter}`;
}

/** Waits for the event itself, within the deadline. */
async function until(condition, what) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what} did not come about`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Fails a promise that takes too long. */
function within(promise, what, milliseconds = DEADLINE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Asks the harness to `restart` or `kill` the broker. */
function control(word) {
  const [, controlHost, controlPort] = process.env.BROKER_CONTROL.match(/^(.*):(\d+)$/);
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(controlPort), controlHost, () => socket.write(`${word}\n`));
    let answer = '';
    socket.on('data', (data) => { answer += data; });
    socket.on('end', () => (answer.startsWith('error') ? reject(new Error(answer)) : resolve(answer.trim())));
    socket.on('error', reject);
  });
}

/** Runs the checks one after the other and exits accordingly. */
async function run() {
  let failed = 0;
  for (const { name, action } of checks) {
    if (process.argv[2] && !name.includes(process.argv[2])) continue;
    try {
      await within(action(), name, 90_000);
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      const line = /suite\.js:(\d+)/.exec(error.stack || '');
      console.log(`not ok ${name}: line ${line ? line[1] : '?'}: ${String(error.message).replace(/\s+/g, ' ').slice(0, 400)}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

module.exports = { check, control, fresh, host, port, run, until, within };
