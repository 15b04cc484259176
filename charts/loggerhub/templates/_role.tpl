{{/* One role of the data plane as a Deployment.
     (dict "root" $ "role" "search" "values" .Values.search "secrets" (list …) "env" (list …)) */}}
{{- define "loggerhub.role" -}}
{{- $root := .root -}}
{{- $name := include "loggerhub.fullname" $root -}}
{{- $component := list $root .role -}}
{{- $mounted := list $root .secrets -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}-{{ .role }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "loggerhub.labels" $component | nindent 4 }}
spec:
  {{- if not (dig "autoscaling" "enabled" false .values) }}
  replicas: {{ .values.replicas }}
  {{- end }}
  # The new pod is ready before the old one ends.
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  revisionHistoryLimit: 3
  selector:
    matchLabels:
      {{- include "loggerhub.selector" $component | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "loggerhub.labels" $component | nindent 8 }}
    spec:
      serviceAccountName: {{ $name }}-dataplane
      automountServiceAccountToken: false
      enableServiceLinks: false
      # 3 s until no Service sends here any more, 20 s to finish what is held, and some to spare.
      terminationGracePeriodSeconds: 30
      securityContext:
        {{- include "loggerhub.podSecurityContext" $root | nindent 8 }}
      {{- include "loggerhub.scheduling" $component | trim | nindent 6 }}
      containers:
        - name: {{ .role }}
          image: {{ include "loggerhub.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [{{ .role }}]
          ports:
            {{- if ne .role "maintain" }}
            - {name: http, containerPort: 8080}
            {{- end }}
            # Health, readiness, metrics, queue status: no Service shows it.
            - {name: admin, containerPort: 9090}
          env:
            {{- include "loggerhub.env" $root | nindent 12 }}
            {{- include "loggerhub.credentialEnv" $mounted | trim | nindent 12 }}
            - {name: LOGGERHUB_REGISTRY_KEYS, value: /etc/loggerhub/registry-keys}
            {{- range .env }}
            - {{ toJson . }}
            {{- end }}
          {{- include "loggerhub.probes" $root | nindent 10 }}
          lifecycle: {preStop: {sleep: {seconds: 3}}}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            {{- include "loggerhub.securityContext" $root | nindent 12 }}
          volumeMounts:
            {{- include "loggerhub.credentialMounts" $mounted | trim | nindent 12 }}
            - {name: registry-keys, mountPath: /etc/loggerhub/registry-keys, readOnly: true}
      volumes:
        {{- include "loggerhub.credentialVolumes" $mounted | trim | nindent 8 }}
        # The operator writes it once every entry of the registry is signed.
        - {name: registry-keys, configMap: {name: {{ $name }}-registry-keys, optional: true}}
{{- end -}}
