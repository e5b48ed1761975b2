// Command judges tells how others see a status: kstatus (kubectl, Flux, Helm), Flux by its health expressions (CEL), and Argo CD's own
// Lua runner.
//
// It reads one JSON object a line from standard input, each {"object": …, "flux": {"current": "…", …}, "lua": "…"}, and writes one JSON
// object a line: {"kstatus": "Current", "flux": "Current", "argocd": "Healthy", "message": "…"}.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Object unstructured.Unstructured        `json:"object"`
	Flux   kustomize.HealthCheckExpressions `json:"flux"`
	Lua    string                           `json:"lua"`
}

type answer struct {
	Kstatus string `json:"kstatus"`
	Flux    string `json:"flux"`
	ArgoCD  string `json:"argocd"`
	Message string `json:"message"`
}

func judge(asked question) (answer, error) {
	seen, err := status.Compute(&asked.Object)
	if err != nil {
		return answer{}, err
	}
	evaluator, err := cel.NewStatusEvaluator(&asked.Flux)
	if err != nil {
		return answer{}, err
	}
	waited, err := evaluator.Evaluate(context.Background(), &asked.Object)
	if err != nil {
		return answer{}, err
	}
	machine := lua.VM{UseOpenLibs: false}
	health, err := machine.ExecuteHealthLua(&asked.Object, asked.Lua)
	if err != nil {
		return answer{}, err
	}
	return answer{string(seen.Status), string(waited.Status), string(health.Status), health.Message}, nil
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			log.Fatal(err)
		}
		found, err := judge(asked)
		if err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(found); err != nil {
			log.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}
