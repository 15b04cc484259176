{{/* Addresses of the stores and log settings: the same for every pod, so that one list serves the
     chart's own Deployments and, through its configuration, those that the operator makes. */}}
{{- define "loggerhub.env" -}}
{{- $stores := .Values.stores -}}
- {name: LOGGERHUB_POSTGRES_HOST, value: {{ required "stores.postgres.host is required: where PostgreSQL is" $stores.postgres.host | quote }}}
- {name: LOGGERHUB_POSTGRES_PORT, value: {{ $stores.postgres.port | quote }}}
- {name: LOGGERHUB_POSTGRES_SSL_MODE, value: {{ $stores.postgres.sslMode | quote }}}
- {name: LOGGERHUB_REDIS_QUEUE_URL, value: {{ required "stores.redis.queue.url is required: where the queue's Redis is" $stores.redis.queue.url | quote }}}
- {name: LOGGERHUB_REDIS_CACHE_URL, value: {{ required "stores.redis.cache.url is required: where the Redis of cache and live tail is" $stores.redis.cache.url | quote }}}
- {name: LOGGERHUB_S3_ENDPOINT, value: {{ required "stores.s3.endpoint is required: where the object store is" $stores.s3.endpoint | quote }}}
- {name: LOGGERHUB_S3_REGION, value: {{ $stores.s3.region | quote }}}
- {name: LOGGERHUB_OPENSEARCH_URL, value: {{ required "stores.opensearch.url is required: where OpenSearch is" $stores.opensearch.url | quote }}}
- {name: LOGGERHUB_LOG, value: {{ .Values.logLevel | quote }}}
- {name: LOGGERHUB_LOG_FORMAT, value: {{ .Values.logFormat | quote }}}
{{- with .Values.tracing }}
{{- if .endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .endpoint | quote }}}
- {name: OTEL_TRACES_SAMPLER, value: {{ .sampler | quote }}}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .samplerArg | quote }}}
- {name: OTEL_RESOURCE_ATTRIBUTES, value: {{ printf "service.namespace=%s,k8s.namespace.name=%s" (include "loggerhub.fullname" $) $.Release.Namespace | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Ports of the stores and of the collector of traces, each once, as a YAML list. */}}
{{- define "loggerhub.storePorts" -}}
{{- $usual := dict "http" "80" "https" "443" "redis" "6379" "rediss" "6379" -}}
{{- $ports := list (toString .Values.stores.postgres.port) -}}
{{- range $url := compact (list .Values.stores.redis.queue.url .Values.stores.redis.cache.url .Values.stores.s3.endpoint .Values.stores.opensearch.url .Values.tracing.endpoint) -}}
{{- $url = urlParse $url -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (get $usual $url.scheme)) -}}
{{- end -}}
[{{ join ", " ($ports | uniq | sortAlpha) }}]
{{- end -}}

{{/* What the pods that the operator makes may hold. Quoted: Helm would write a large number as 1e+09. */}}
{{- define "loggerhub.limitsEnv" -}}
- {name: LOGGERHUB_QUEUE_TENANT_PERCENT, value: {{ .Values.queue.tenantPercent | quote }}}
- {name: LOGGERHUB_QUEUE_WAIT_REPLICAS, value: {{ .Values.queue.waitReplicas | quote }}}
- {name: LOGGERHUB_QUEUE_WAIT_TIMEOUT_MS, value: {{ .Values.queue.waitTimeoutMilliseconds | quote }}}
- {name: LOGGERHUB_SPOOL_MAX_BYTES, value: {{ kindIs "string" .Values.spool.maxBytes | ternary .Values.spool.maxBytes (int64 .Values.spool.maxBytes) | quote }}}
- {name: LOGGERHUB_SPOOL_TENANT_PERCENT, value: {{ .Values.spool.tenantPercent | quote }}}
{{- end -}}

{{/* Secrets that a pod mounts, as folder: secret; an absent Secret's folder is left out.
     (list $ (list "postgres-admin" "redis-queue" …)) */}}
{{- define "loggerhub.secrets" -}}
{{- $root := index . 0 -}}
{{- $stores := $root.Values.stores -}}
{{- $name := include "loggerhub.fullname" $root -}}
{{- $all := dict
  "postgres-admin" (required "stores.postgres.existingSecret is required: a Secret with username and password" $stores.postgres.existingSecret)
  "postgres-data" (printf "%s-postgres-data" $name)
  "postgres-maintain" (printf "%s-postgres-maintain" $name)
  "postgres-search" (printf "%s-postgres-search" $name)
  "redis-queue-admin" $stores.redis.queue.existingSecret
  "redis-queue-maintain" ($stores.redis.queue.processSecret | default $stores.redis.queue.existingSecret)
  "redis-queue-search" ($stores.redis.queue.readSecret | default $stores.redis.queue.existingSecret)
  "redis-cache" $stores.redis.cache.existingSecret
  "s3-admin" (required "stores.s3.existingSecret is required: a Secret with accessKeyId and secretAccessKey" $stores.s3.existingSecret)
  "s3-maintain" ($stores.s3.dataSecret | default $stores.s3.existingSecret)
  "s3-search" ($stores.s3.searchSecret | default $stores.s3.dataSecret | default $stores.s3.existingSecret)
  "opensearch-admin" $stores.opensearch.existingSecret
  "opensearch-maintain" ($stores.opensearch.maintainSecret | default $stores.opensearch.existingSecret)
  "opensearch-search" ($stores.opensearch.searchSecret | default $stores.opensearch.existingSecret)
  "peppers" (include "loggerhub.peppers" $root) -}}
{{- $mounted := dict -}}
{{- range $secret := index . 1 -}}
{{- with get $all $secret -}}
{{- $_ := set $mounted (regexReplaceAll "-(admin|data|maintain|search)$" $secret "") . -}}
{{- end -}}
{{- end -}}
{{- toYaml $mounted -}}
{{- end -}}

{{- define "loggerhub.peppers" -}}
{{- .Values.pepper.existingSecret | default (printf "%s-peppers" (include "loggerhub.fullname" .)) -}}
{{- end -}}

{{/* The variables that name the mounted folders. */}}
{{- define "loggerhub.credentialEnv" -}}
{{- $variables := dict "postgres" "LOGGERHUB_POSTGRES_CREDENTIALS" "redis-queue" "LOGGERHUB_REDIS_QUEUE_CREDENTIALS"
  "redis-cache" "LOGGERHUB_REDIS_CACHE_CREDENTIALS" "s3" "LOGGERHUB_S3_CREDENTIALS"
  "opensearch" "LOGGERHUB_OPENSEARCH_CREDENTIALS" "peppers" "LOGGERHUB_PEPPERS" -}}
{{- range $folder, $secret := include "loggerhub.secrets" . | fromYaml }}
- {name: {{ get $variables $folder }}, value: /etc/loggerhub/secrets/{{ $folder }}}
{{- end }}
{{- if include "loggerhub.caVolume" (index . 0) }}
- {name: LOGGERHUB_CA_BUNDLE, value: /etc/loggerhub/ca/ca.crt}
{{- end }}
{{- end -}}

{{- define "loggerhub.credentialMounts" -}}
{{- range $folder, $secret := include "loggerhub.secrets" . | fromYaml }}
- {name: {{ $folder }}, mountPath: /etc/loggerhub/secrets/{{ $folder }}, readOnly: true}
{{- end }}
{{- if include "loggerhub.caVolume" (index . 0) }}
- {name: ca, mountPath: /etc/loggerhub/ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "loggerhub.credentialVolumes" -}}
{{- range $folder, $secret := include "loggerhub.secrets" . | fromYaml }}
- {name: {{ $folder }}, secret: {secretName: {{ $secret }}, defaultMode: 0440}}
{{- end }}
{{- with include "loggerhub.caVolume" (index . 0) }}
- {{ . }}
{{- end }}
{{- end -}}

{{- define "loggerhub.caVolume" -}}
{{- $ca := .Values.stores.caBundle -}}
{{- if and $ca.existingConfigMap $ca.existingSecret -}}
{{- fail "stores.caBundle: name a ConfigMap or a Secret, not both" -}}
{{- else if $ca.existingConfigMap -}}
{name: ca, configMap: {name: {{ $ca.existingConfigMap }}}}
{{- else if $ca.existingSecret -}}
{name: ca, secret: {secretName: {{ $ca.existingSecret }}, defaultMode: 0440}}
{{- end -}}
{{- end -}}
