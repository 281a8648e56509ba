package central

import (
	"cmp"
	"net/http"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/power"
)

// object is a JSON object.
type object = map[string]any

// openAPI answers with the description of the API (OpenAPI 3.1). It is made of the table of
// routes and of the types that they read and answer, so that it says what central does.
func (c *Central) openAPI(*http.Request) (object, error) {
	paths, s := object{}, schemas{of: object{}, types: map[string]reflect.Type{}}
	for _, r := range c.table {
		method, where, _ := strings.Cut(r.pattern, " ")
		item, _ := paths[where].(object)
		if item == nil {
			item = object{}
			paths[where] = item
		}
		item[strings.ToLower(method)] = s.operation(r)
	}
	codes := make([]any, len(api.Codes))
	for i, one := range api.Codes {
		codes[i] = one.Code
	}
	problem := s.schema(reflect.TypeFor[api.Problem]())
	s.of["Problem"].(object)["properties"].(object)["code"] = object{
		"type": "string",
		"enum": codes,
	} //nolint:errcheck,forcetypeassert // made above
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "rackpower", "version": "1", "description": "Power of bare-metal servers. " +
				"Every error is a problem (RFC 9457) with a code that programs may act on.",
		},
		"paths": paths,
		"components": object{
			"schemas":   s.of,
			"responses": object{"Problem": object{"description": "an error", "content": content("application/problem+json", problem, nil)}},
			"securitySchemes": object{
				"token":       object{"type": "http", "scheme": "bearer"},
				"certificate": object{"type": "mutualTLS"},
			},
		},
		"security": []any{object{"token": []any{}}, object{"certificate": []any{}}},
	}, nil
}

// schemas are those of the named types, by name.
type schemas struct {
	of    object
	types map[string]reflect.Type // that has the name
}

// name is that of a type, with its package before where another type has it already.
func (s schemas) name(t reflect.Type) string {
	name := t.Name()
	if other := s.types[name]; other != nil && other != t {
		pkg := path.Base(t.PkgPath())
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	s.types[name] = t
	return name
}

var inPath = regexp.MustCompile(`\{(\w+)\}`)

func (s schemas) operation(r route) object {
	d := described[r.pattern]
	op := object{"summary": d.summary, "x-role": r.to.String(), "responses": object{
		"200": s.answer(r.endpoint), "default": object{"$ref": "#/components/responses/Problem"},
	}}
	var params []any
	for _, m := range inPath.FindAllStringSubmatch(r.pattern, -1) {
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, name := range slices.Concat(d.query, r.query) {
		p := object{"name": name, "in": "query", "description": queries[name].meaning, "schema": object{"type": "string"}}
		if example := queries[name].example; example != "" {
			p["example"] = example
		}
		params = append(params, p)
	}
	if r.in != nil && r.to.changes() {
		params = append(params, object{
			"name": api.IdempotencyKey, "in": "header", "schema": object{"type": "string", "maxLength": maxKeyLength},
			"description": "chosen by who asks: the same request again, within 24 hours, has the same answer and does nothing",
		})
	}
	if params != nil {
		op["parameters"] = params
	}
	if r.in != nil {
		var example any
		if d.example != "" {
			example = rawJSON(d.example)
		}
		op["requestBody"] = object{"required": true, "content": content("application/json", s.schema(r.in), example)}
	}
	if r.to.open {
		op["security"] = []any{}
	}
	return op
}

func (s schemas) answer(e endpoint) object {
	out := object{"description": "done"}
	switch {
	case e.media != "":
		out["content"] = content(e.media, object{"type": "string"}, nil)
	case e.out != nil:
		out["content"] = content("application/json", s.schema(e.out), nil)
	}
	return out
}

func content(media string, schema object, example any) object {
	body := object{"schema": schema}
	if example != nil {
		body["example"] = example
	}
	return object{media: body}
}

// schema is that of a type; a named struct stands in the list once.
func (s schemas) schema(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[time.Duration]():
		return object{"type": "integer", "description": "nanoseconds"}
	case reflect.TypeFor[power.Seq]():
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return object{"anyOf": []any{s.schema(t.Elem()), object{"type": "null"}}}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": []any{"array", "null"}, "items": s.schema(t.Elem())}
	case reflect.Map:
		return object{"type": []any{"object", "null"}, "additionalProperties": s.schema(t.Elem())}
	case reflect.Struct:
		if t.Name() == "" {
			return s.properties(t)
		}
		name := s.name(t)
		if _, known := s.of[name]; !known {
			s.of[name] = object{} // of a type that has itself
			s.of[name] = s.properties(t)
		}
		return object{"$ref": "#/components/schemas/" + name}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Interface:
		return object{}
	default:
		return object{"type": "integer"}
	}
}

func (s schemas) properties(t reflect.Type) object {
	all := object{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" || !f.IsExported() || name == "-" {
			continue
		}
		all[cmp.Or(name, f.Name)] = s.schema(f.Type)
	}
	return object{"type": "object", "properties": all}
}

// String says who may use a route.
func (a access) String() string {
	text := string(a.least)
	switch {
	case a.open:
		return "anybody"
	case a.least == "":
		return "the agent of that name"
	case a.own:
		text += ", or the user of that name"
	case !a.scoped:
		text += " of the whole site"
	}
	return text
}

// changes reports whether the routes for bodies change something for people.
func (a access) changes() bool { return a.least.Includes(auth.Operator) || a.own }

// onlyKnown refuses query parameters that a route does not have: a misspelt one must not be
// ignored.
func onlyKnown(known []string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for name := range r.URL.Query() {
			if !slices.Contains(known, name) {
				api.Problemf(api.CodeBadRequest, "query parameter %.100q is not known here", name).Write(w)
				return
			}
		}
		h(w, r)
	}
}
