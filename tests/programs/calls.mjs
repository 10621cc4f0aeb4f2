// Calls the registry at the URL in the first argument with the token in the second one.
const [url, token] = process.argv.slice(2)

async function call(method, path, body) {
  const headers = token ? { authorization: `Bearer ${token}` } : {}
  if (body) headers['content-type'] = 'application/json'
  const response = await fetch(url + path, { method, headers, body })
  await response.arrayBuffer()
  console.log(method, path, response.status)
}

await call('POST', '/agents', '{"id": "p", "endpoint": "http://p:1/mcp"}')
await call('POST', '/heartbeat', '{"agent_id": "p"}')
await call('GET', '/agents?status=healthy')
await call('HEAD', '/heartbeat/p')
await call('POST', '/admin/drain')
await call('DELETE', '/admin/drain')
await call('DELETE', '/agents/p')
