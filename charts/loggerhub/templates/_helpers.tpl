{{/* The name of everything that is made. */}}
{{- define "loggerhub.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = ternary .Release.Name (printf "%s-loggerhub" .Release.Name) (contains "loggerhub" .Release.Name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* Labels that select a component's pods: (list $ "gateway"). */}}
{{- define "loggerhub.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: loggerhub
app.kubernetes.io/instance: {{ include "loggerhub.fullname" $root }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of a component's objects: (list $ "gateway"). */}}
{{- define "loggerhub.labels" -}}
{{- $root := index . 0 -}}
{{ include "loggerhub.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: loggerhub
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- define "loggerhub.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The one pod security context: what Pod Security's `restricted` asks for, and a user. */}}
{{- define "loggerhub.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# The group that may read the mounted Secrets, which nobody else can.
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "loggerhub.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where pods go: (list $ "gateway"). */}}
{{- define "loggerhub.scheduling" -}}
{{- $root := index . 0 -}}
{{- $selector := include "loggerhub.selector" . | fromYaml -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.topologySpreadConstraints }}
{{- $constraints := list }}
{{- range . }}
{{- $constraints = append $constraints (merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" $selector))) }}
{{- end }}
topologySpreadConstraints:
  {{- toYaml $constraints | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "loggerhub.probes" -}}
# The process runs: only a hang is a reason to restart, a store that is down is not.
livenessProbe:
  httpGet: {path: /health, port: admin}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /ready, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 3
{{- end -}}
