"use strict";
// The service worker of page.html: it sends a registration without a type.
self.onactivate = (event) => event.waitUntil(self.clients.claim());
self.onmessage = async (event) => {
  const { registry, json } = event.data;
  const call = (path, request) =>
    fetch(registry + path, { mode: "no-cors", ...request }).then((response) => response.type, String);
  const post = await call("/agents", { method: "POST", body: new Blob([json]) });
  const head = await call("/heartbeat/victim", { method: "HEAD" });
  event.ports[0].postMessage(`${post} ${head}`);
};
