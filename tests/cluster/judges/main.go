// Command judges tells how others see a status: kstatus (kubectl, Flux, Helm) and Argo CD's own Lua runner.
//
// It reads one JSON object a line from standard input, each {"object": …, "lua": "…"}, and writes one JSON object a line:
// {"kstatus": "Current", "argocd": "Healthy", "message": "…"}.
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Object unstructured.Unstructured `json:"object"`
	Lua    string                    `json:"lua"`
}

type answer struct {
	Kstatus string `json:"kstatus"`
	ArgoCD  string `json:"argocd"`
	Message string `json:"message"`
}

func judge(asked question) (answer, error) {
	seen, err := status.Compute(&asked.Object)
	if err != nil {
		return answer{}, err
	}
	machine := lua.VM{UseOpenLibs: false}
	health, err := machine.ExecuteHealthLua(&asked.Object, asked.Lua)
	if err != nil {
		return answer{}, err
	}
	return answer{string(seen.Status), string(health.Status), health.Message}, nil
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
