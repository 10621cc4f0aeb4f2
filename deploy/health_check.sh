#!/bin/bash
# Is the registry of this cluster well? Every line says what was found; the status is 0 if all of it is.
# Needs kubectl, and an account that may read StatefulSets and reach Services through the API server.
# CONTEXT and NAMESPACE in the environment say where.
set -u
NAMESPACE=${NAMESPACE:-mcp-mesh}
NAME=mcp-mesh-registry
failed=0

k() { kubectl ${CONTEXT:+--context "$CONTEXT"} --namespace "$NAMESPACE" --request-timeout 10s "$@"; }
ok() { echo "ok      $*"; }
bad() {
    echo "ERROR   $*"
    failed=1
}
ask() { k get --raw "/api/v1/namespaces/$NAMESPACE/services/http:$NAME:$1/proxy$2"; }

if ! counts=$(k get statefulset $NAME -o jsonpath='{.status.readyReplicas}/{.spec.replicas} {.status.updatedReplicas}'); then
    bad "there is no StatefulSet $NAME in $NAMESPACE"
    exit 1
fi
read -r of updated <<<"$counts"
ready=${of%/*} desired=${of#*/}
if [ "${ready:-0}" = "$desired" ]; then ok "$ready of $desired replicas are ready"; else bad "only ${ready:-0} of $desired replicas are ready"; fi
[ "${updated:-$desired}" = "$desired" ] || bad "only $updated of $desired replicas run the newest version; a rollout is on, or stuck"

if health=$(ask 8080 /health 2>&1); then
    ok "the Service answers"
    case $health in *'"status":"healthy"'*) ok "the replica that answered follows the store" ;; *) bad "the replica that answered is degraded: $health" ;; esac
    case $health in *'"warnings":[]'*) ok "nothing to worry about" ;; *) bad "warnings: ${health##*\"warnings\":}" ;; esac
    case $health in *'"leader":{"leading":'*'"instance":null'*) bad "there is no leader, so overdue agents are not degraded" ;; *) ok "there is a leader" ;; esac
else
    bad "the Service does not answer: $health"
fi
if ask 9090 /metrics 2>/dev/null | grep -q '^mcp_registry_agents_total '; then ok "metrics can be scraped"; else bad "there are no metrics on port 9090"; fi

exit $failed
