// A Node service whose memory behaves in one of several known ways. Prints `onset SECONDS` when a leak begins.
//
//   node server.js leak RATE [DELAY_S]   a Map of sessions that nobody removes: RATE bytes a second
//   node server.js churn RATE            requests whose garbage the collector frees: a saw-tooth

"use strict";

const [mode, rate, delay] = process.argv.slice(2);
const sessions = new Map();

function paced(perSecond, job) {
  const start = performance.now();
  let done = 0;
  setInterval(() => {
    const due = Math.floor(((performance.now() - start) / 1000) * perSecond);
    for (; done < due; done++) job(done);
  }, 50);
}

// About two kilobytes of objects and strings.
function session(id) {
  return { id, at: Date.now(), name: `user ${id}`, items: Array.from({ length: 200 }, (_, i) => i + id + 0.5) };
}

if (mode === "leak") {
  setTimeout(() => {
    console.log(`onset ${(Date.now() / 1000).toFixed(3)}`);
    paced(Number(rate) / 1950, (id) => sessions.set(id, session(id)));
  }, Number(delay ?? 0) * 1000);
} else if (mode === "churn") {
  paced(Number(rate) / 1950, (id) => {
    sessions.set(id % 2000, session(id));
  });
} else {
  console.error("usage: server.js leak|churn RATE [DELAY_S]");
  process.exitCode = 2;
}
