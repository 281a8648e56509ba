package central

import (
	"bytes"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"rackpower/central/api"
)

// docsPage shows the description of the API as a page that needs nothing else: no script, and
// no style but its own.
func (c *Central) docsPage(w http.ResponseWriter, _ *http.Request) {
	type shown struct {
		Method, Path, Anchor, Summary, Role string
		Query                               []string
		In, Out, Example                    string
	}
	page := struct {
		Routes  []shown
		Queries map[string]string
		Codes   []api.CodeMeaning
	}{Queries: map[string]string{}, Codes: api.Codes}
	for name, q := range queries {
		page.Queries[name] = q.meaning
	}
	for _, r := range c.table {
		method, path, _ := strings.Cut(r.pattern, " ")
		d := described[r.pattern]
		one := shown{
			Method: method, Path: path, Anchor: strings.ToLower(method) + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(path),
			Summary: d.summary, Role: r.to.String(), Query: slices.Concat(d.query, r.query), Example: d.example,
		}
		if r.in != nil {
			one.In = r.in.Name()
		}
		if r.out != nil {
			one.Out = strings.TrimPrefix(strings.ReplaceAll(r.out.String(), "api.", ""), "*")
		}
		page.Routes = append(page.Routes, one)
	}
	var out bytes.Buffer
	if err := docsTemplate.Execute(&out, page); err != nil {
		c.answer(w, nil, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors "+
		"'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(out.Bytes())
}

var docsTemplate = template.Must(template.New("docs").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>rackpower: API</title>
<style>
:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em } pre { overflow-x: auto; padding: .5rem; border: 1px solid #8888 }
section { border-top: 1px solid #8888; padding: .5rem 0 } h2 { font-size: 1rem; margin: .5rem 0 }
td, th { text-align: left; padding: 0 1rem 0 0; vertical-align: top }
</style></head><body>
<h1>rackpower: API</h1>
<p>For programs: <a href="/v1/openapi.json">openapi.json</a> (OpenAPI 3.1), with the fields of each body.</p>
{{range .Routes}}<section id="{{.Anchor}}"><h2><code>{{.Method}} {{.Path}}</code></h2>
<p>{{.Summary}}. For: {{.Role}}.{{if .In}} Body: <code>{{.In}}</code>.{{end}}{{if .Out}} Answer: <code>{{.Out}}</code>.{{end}}</p>
{{if .Query}}<table>{{range .Query}}<tr><th scope="row"><code>{{.}}</code></th><td>{{index $.Queries .}}</td></tr>{{end}}</table>{{end}}
{{with .Example}}<pre>{{.}}</pre>{{end}}</section>
{{end}}
<section id="codes"><h2>Codes of errors</h2><table>
{{range .Codes}}<tr><th scope="row"><code>{{.Code}}</code></th><td>{{.Status}}</td><td>{{.Meaning}}</td></tr>{{end}}
</table></section></body></html>
`))
