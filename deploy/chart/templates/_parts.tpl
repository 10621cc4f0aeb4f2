{{/* Shared parts. Object names are fixed, so a namespace can contain one release, with any name. */}}

{{/* The stable names of the three Redis hosts. */}}
{{- define "redis.hosts" -}}
mcp-mesh-redis-0.mcp-mesh-redis mcp-mesh-redis-1.mcp-mesh-redis mcp-mesh-redis-2.mcp-mesh-redis
{{- end }}

{{- define "redis.url" -}}
{{- if .Values.redis.enabled -}}
redis+sentinel://:$(REDIS_PASSWORD)@{{ include "redis.hosts" . | replace " " "," }}/mesh?sentinel_password=$(REDIS_PASSWORD)
{{- else -}}
{{ .Values.redis.url }}
{{- end -}}
{{- end }}

{{/* Not empty if the registry serves callers without a token. */}}
{{- define "open" -}}
{{- if has (.Values.config.REGISTRY_OPEN | toString) (list "true" "yes" "on" "1") }}true{{ end -}}
{{- end }}

{{- define "selector" -}}
app.kubernetes.io/name: mcp-mesh-registry
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/component: registry
app.kubernetes.io/part-of: mcp-mesh
{{- end }}

{{/* The names of the two Services and of the pods, and those in the values, joined by commas. Empty if neither they nor an
open registry require names: then a caller with the token may use any name. */}}
{{- define "hostnames" -}}
{{- if or .Values.config.REGISTRY_HOSTNAMES (include "open" .) }}
{{- $names := list }}
{{- range $suffix := list "" (printf ".%s" .Release.Namespace) (printf ".%s.svc" .Release.Namespace) (printf ".%s.svc.cluster.local" .Release.Namespace) }}
{{- range $service := list "mcp-mesh-registry" "mcp-mesh-registry-headless" "*.mcp-mesh-registry-headless" }}
{{- $names = append $names (print $service $suffix) }}
{{- end }}
{{- end }}
{{- with .Values.config.REGISTRY_HOSTNAMES }}
{{- $names = append $names . }}
{{- end }}
{{- join "," $names }}
{{- end }}
{{- end }}

{{- define "redis.selector" -}}
app.kubernetes.io/name: mcp-mesh-redis
{{- end }}

{{- define "redis.labels" -}}
{{ include "redis.selector" . }}
app.kubernetes.io/component: store
app.kubernetes.io/part-of: mcp-mesh
{{- end }}

{{- define "backup.selector" -}}
app.kubernetes.io/name: mcp-mesh-backup
{{- end }}

{{- define "backup.labels" -}}
{{ include "backup.selector" . }}
app.kubernetes.io/component: backup
app.kubernetes.io/part-of: mcp-mesh
{{- end }}

{{/* An unprivileged user, as the restricted Pod Security Standard requires. */}}
{{- define "pod.security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The connection to Redis, the same for replicas and backups. */}}
{{- define "redis.env" -}}
{{- with include "redis.url" . -}}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ $.Values.secret.name }}, key: REDIS_PASSWORD, optional: {{ not $.Values.redis.enabled }}}
- name: REDIS_URL
  value: {{ . | quote }}
{{- end -}}
{{- end }}

{{/* Pods with these labels on different nodes. Arguments: labels, and "required" or "preferred". */}}
{{- define "apart" -}}
podAntiAffinity:
{{- if eq (index . 1) "required" }}
  requiredDuringSchedulingIgnoredDuringExecution:
    - labelSelector:
        matchLabels: {{- index . 0 | nindent 10 }}
      topologyKey: kubernetes.io/hostname
{{- else }}
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        labelSelector:
          matchLabels: {{- index . 0 | nindent 12 }}
        topologyKey: kubernetes.io/hostname
{{- end }}
{{- end }}

{{- define "spread" -}}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- . | nindent 6 }}
{{- end }}
