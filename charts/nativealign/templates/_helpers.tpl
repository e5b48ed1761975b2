{{/* Base of all names: the release's name, with a hash where it is long, so that names of two releases never meet. */}}
{{- define "nativealign.fullname" -}}
{{- $both := printf "%s-%s" .Release.Name .Chart.Name -}}
{{- $name := .Values.fullnameOverride | default (contains .Chart.Name .Release.Name | ternary .Release.Name $both) -}}
{{- if gt (len $name) 49 -}}
{{- printf "%s-%s" (trunc 40 $name | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end -}}

{{/* Base of names outside the release's namespace. A colon cannot be in the other parts, so no two releases make the same. */}}
{{- define "nativealign.globalName" -}}
nativealign:{{ .Release.Namespace }}:{{ include "nativealign.fullname" . }}
{{- end -}}

{{/* Labels of every object. Takes a list: the root, and the component. */}}
{{- define "nativealign.labels" -}}
{{- $root := index . 0 -}}
{{ include "nativealign.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: nativealign
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{/* Labels that selectors use; they never change between versions, and jobs' pods have another name. */}}
{{- define "nativealign.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: nativealign-operator
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of jobs' pods, as the operator sets them. */}}
{{- define "nativealign.workloads" -}}
app.kubernetes.io/name: nativealign
app.kubernetes.io/managed-by: nativealign-operator
{{- end -}}

{{- define "nativealign.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "nativealign.fullname" .) "default") -}}
{{- end -}}

{{/* Reference of an image. Takes a list: the root, and the image's values. */}}
{{- define "nativealign.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "nativealign.devStore" -}}
{{ include "nativealign.fullname" . }}-dev-store
{{- end -}}

{{/* The bucket of jobs that name no store; empty where they must. */}}
{{- define "nativealign.bucket" -}}
{{- with .Values.store }}{{ if and .endpoint (not .bucket) (not $.Values.devStore.enabled) -}}
{{ fail "store.bucket: needed where store.endpoint is set" }}{{ end }}{{ end -}}
{{- .Values.store.bucket | default (.Values.devStore.enabled | ternary "nativealign" "") -}}
{{- end -}}

{{/* The store of jobs that name none, as JSON of the field `store` of a job. */}}
{{- define "nativealign.store" -}}
{{- $given := .Values.store -}}
{{- $endpoint := $given.endpoint -}}
{{- if .Values.devStore.enabled -}}
{{- $endpoint = $endpoint | default (printf "http://%s.%s.svc:7070" (include "nativealign.devStore" .) .Release.Namespace) -}}
{{- end -}}
{{- if not $endpoint }}{{ fail "store.endpoint: needed where store.bucket is set" }}{{ end -}}
{{- $store := dict "bucket" (include "nativealign.bucket" .) "prefix" $given.prefix "endpoint" $endpoint "region" $given.region -}}
{{- with $given.existingSecret }}{{ $_ := set $store "credentialsSecret" (dict "name" .) }}{{ end -}}
{{- if $given.caBundle.name }}{{ $_ := set $store "caBundle" $given.caBundle }}{{ end -}}
{{- toJson $store -}}
{{- end -}}

{{- define "nativealign.gc" -}}
{{ include "nativealign.fullname" . }}-gc
{{- end -}}

{{/* Security contexts under the restricted Pod Security Standard. */}}
{{- define "nativealign.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "nativealign.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
{{- end -}}
