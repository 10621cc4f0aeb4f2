// Calls the registry at the URL in the first argument with the token in the second one.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func call(method, path, body string) {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	request, err := http.NewRequest(method, os.Args[1]+path, reader)
	if err != nil {
		panic(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if os.Args[2] != "" {
		request.Header.Set("Authorization", "Bearer "+os.Args[2])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	fmt.Println(method, path, response.StatusCode)
}

func main() {
	call("POST", "/agents", `{"id": "p", "endpoint": "http://p:1/mcp"}`)
	call("POST", "/heartbeat", `{"agent_id": "p"}`)
	call("GET", "/agents?status=healthy", "")
	call("HEAD", "/heartbeat/p", "")
	call("POST", "/admin/drain", "")
	call("DELETE", "/admin/drain", "")
	call("DELETE", "/agents/p", "")
}
