package engineapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// openapi says what is served (OpenAPI 3.0). A test compares it with the routes.
//
//go:embed openapi.json
var openapi []byte

//go:embed docs.html
var docsPage string

// document is what of OpenAPI the page shows.
type document struct {
	Info struct{ Title, Version, Description string }
	// Paths holds operations by path and method.
	Paths map[string]map[string]operation
}

type operation struct {
	Summary, Description string
	Tags                 []string
	Parameters           []parameter
	RequestBody          *struct{ Description string } `json:"requestBody"`
	Responses            map[string]struct{ Description string }
}

type parameter struct {
	Name, In, Description string
	Required              bool
}

// shownOperation is one entry of the page.
type shownOperation struct {
	Method, Path string
	operation
}

type shownGroup struct {
	Name       string
	Operations []shownOperation
}

func parseDocument() (*document, error) {
	d := &document{}
	if err := json.Unmarshal(openapi, d); err != nil {
		return nil, fmt.Errorf("the API's description: %w", err)
	}
	return d, nil
}

// groups sorts operations by their tag, then path and method.
func (d *document) groups() (out []shownGroup) {
	byTag := map[string][]shownOperation{}
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			o := d.Paths[path][method]
			tag := strings.Join(o.Tags, ", ")
			delete(o.Responses, "default")
			byTag[tag] = append(byTag[tag], shownOperation{Method: strings.ToUpper(method), Path: path, operation: o})
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(byTag)) {
		out = append(out, shownGroup{tag, byTag[tag]})
	}
	return out
}

func docsRoutes() []route {
	return []route{
		{http.MethodGet, "/openapi.json", serveOpenAPI},
		{http.MethodGet, "/docs", serveDocs},
	}
}

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(openapi)
	return err
}

// serveDocs shows the document as a page that needs nothing from elsewhere, and may load nothing.
func serveDocs(w http.ResponseWriter, _ *http.Request) error {
	d, err := parseDocument()
	if err != nil {
		return err
	}
	page, err := template.New("docs").Parse(docsPage)
	if err != nil {
		return fmt.Errorf("the documentation's page: %w", err)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, map[string]any{"Info": d.Info, "Groups": d.groups()}); err != nil {
		return fmt.Errorf("the documentation's page: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_, err = w.Write(b.Bytes())
	return err
}
