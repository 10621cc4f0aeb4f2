#!/bin/bash
# Check the registry of a cluster: one line for each check; the exit code is 0 if all of them pass.
# Requires kubectl, and an account that may read StatefulSets and call Services through the API server.
# The environment variables CONTEXT and NAMESPACE select the cluster and the namespace.
set -u
NAMESPACE=${NAMESPACE:-mcp-mesh}
NAME=mcp-mesh-registry
failed=0

in_namespace() { kubectl ${CONTEXT:+--context "$CONTEXT"} --namespace "$NAMESPACE" --request-timeout 10s "$@"; }
ok() { echo "ok      $*"; }
error() {
    echo "ERROR   $*"
    failed=1
}
call_service() { in_namespace get --raw "/api/v1/namespaces/$NAMESPACE/services/http:$NAME:$1/proxy$2"; }

if ! counts=$(in_namespace get statefulset $NAME -o jsonpath='{.status.readyReplicas}/{.spec.replicas} {.status.updatedReplicas}'); then
    error "there is no StatefulSet $NAME in $NAMESPACE"
    exit 1
fi
read -r ready_of_desired updated <<<"$counts"
ready=${ready_of_desired%/*} desired=${ready_of_desired#*/}
if [ "${ready:-0}" = "$desired" ]; then ok "$ready of $desired replicas are ready"; else error "only ${ready:-0} of $desired replicas are ready"; fi
[ "${updated:-$desired}" = "$desired" ] || error "only $updated of $desired replicas run the newest version; a rollout is in progress or stuck"

if health=$(call_service 8080 /health 2>&1); then
    ok "the Service responds"
    case $health in *'"status":"healthy"'*) ok "the replica that responded follows the change log" ;; *) error "the replica that responded is starting or degraded: $health" ;; esac
else
    error "the Service does not respond: $health"
fi
# The API server removes a token from a forwarded request, and without it /health shows no details.
if metrics=$(call_service 9090 /metrics 2>/dev/null) && grep -q '^mcp_registry_agents_total ' <<<"$metrics"; then
    ok "metrics can be scraped"
    if grep -q '^mcp_registry_leader_info{.* 1\.0$' <<<"$metrics"; then ok "there is a leader"; else error "there is no leader, so overdue agents are not degraded"; fi
    if grep -qx 'mcp_registry_warnings 0\.0' <<<"$metrics"; then ok "there are no warnings"; else error "there are warnings; mcp-mesh-registry health shows them with the token"; fi
    for reason in $(sed -n 's/^mcp_registry_insecure{reason="\(.*\)"} 1\.0$/\1/p' <<<"$metrics"); do error "strangers may use the registry ($reason)"; done
else
    error "there are no metrics on port 9090"
fi

exit $failed
