# Calls the registry at the URL in the first argument with the token in the second one.
call() {
  method=$1 path=$2
  shift 2
  [ "$method" = HEAD ] && set -- --head "$@" || set -- --request "$method" "$@"
  curl -s -o /dev/null -w "$method $path %{http_code}\n" ${TOKEN:+-H "authorization: Bearer $TOKEN"} "$@" "$URL$path"
}

URL=$1 TOKEN=$2 JSON='content-type: application/json'
call POST /agents -H "$JSON" -d '{"id": "p", "endpoint": "http://p:1/mcp"}'
call POST /heartbeat -H "$JSON" -d '{"agent_id": "p"}'
call GET '/agents?status=healthy'
call HEAD /heartbeat/p
call POST /admin/drain
call DELETE /admin/drain
call DELETE /agents/p
