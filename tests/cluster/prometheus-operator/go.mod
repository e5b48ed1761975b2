// Not built: the chart's tests read the CRDs of ServiceMonitor, PodMonitor and PrometheusRule from this module's example/ folder.
module nativealign.dev/tests/cluster/prometheus-operator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
