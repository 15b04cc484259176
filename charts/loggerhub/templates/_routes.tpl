{{/* The ways in from outside the cluster, as an Ingress and as a Gateway API HTTPRoute. Only tenants'
     routes: /metrics, /queue/status, /health and /ready stay inside.
     (dict "root" $ "door" "gateway" "service" "loggerhub-gateway" "values" .Values.gateway "prefixes" (list "/logs" …) "exact" (list "/")) */}}
{{- define "loggerhub.ingress" -}}
{{- $door := . -}}
{{- $ingress := .values.ingress -}}
{{- if not $ingress.hosts -}}
{{- fail (printf "%s.ingress.hosts: name at least one host" .door) -}}
{{- end -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ .service }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "loggerhub.labels" (list .root .door) | nindent 4 }}
  {{- with $ingress.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with $ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- with $ingress.tls }}
  tls:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    {{- range $ingress.hosts }}
    - host: {{ . | quote }}
      http:
        paths:
          {{- range $door.prefixes }}
          - {path: {{ . }}, pathType: Prefix, backend: {service: {name: {{ $door.service }}, port: {name: http}}}}
          {{- end }}
          {{- range $door.exact }}
          - {path: {{ . }}, pathType: Exact, backend: {service: {name: {{ $door.service }}, port: {name: http}}}}
          {{- end }}
    {{- end }}
{{- end -}}

{{- define "loggerhub.httpRoute" -}}
{{- $route := .values.httpRoute -}}
{{- if not $route.parentRefs -}}
{{- fail (printf "%s.httpRoute.parentRefs: name at least one Gateway" .door) -}}
{{- end -}}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {{ .service }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "loggerhub.labels" (list .root .door) | nindent 4 }}
  {{- with $route.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  parentRefs:
    {{- toYaml $route.parentRefs | nindent 4 }}
  {{- with $route.hostnames }}
  hostnames:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - matches:
        {{- range .prefixes }}
        - path: {type: PathPrefix, value: {{ . }}}
        {{- end }}
        {{- range .exact }}
        - path: {type: Exact, value: {{ . }}}
        {{- end }}
      backendRefs: [{name: {{ .service }}, port: 80}]
{{- end -}}
