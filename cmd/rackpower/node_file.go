package main

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// specFields are the fields of a node in files.
var specFields = []string{
	"name", "rack", "bmc", "password", "password_file", "kg", "kg_file", "credentials", "domain", "labels",
	"status", "protected", agentsField,
}

// maxSaid bounds how many bad rows are told at once.
const maxSaid = 20

// specRow is one node of a file, not checked yet.
type specRow struct {
	where  string // "row 3 (line 12)"
	fields map[string]string
	blanks bool // an empty field is one that is not given
	err    error
}

// specReader reads files of nodes, and the files of secrets that these name.
type specReader struct{ secretReader }

// read reads and checks a file of nodes. All rows are good or none is taken.
func (r specReader) read(path string) ([]api.NodeSpec, error) {
	in, close, err := r.openInput(path)
	if err != nil {
		return nil, settings.Exit(settings.ExitUsage, "cannot read the nodes: %v", err)
	}
	defer close()
	data, err := r.readAll(in)
	if err != nil {
		return nil, err
	}
	rows, err := parseRows(path, data)
	if err != nil {
		return nil, settings.Exit(settings.ExitUsage, "%s: %v", path, err)
	}
	secret := func(r specRow) bool { return r.fields["password"]+r.fields["kg"] != "" }
	if file, ok := in.(*os.File); ok && slices.ContainsFunc(rows, secret) {
		r.warnReadable(file, "passwords")
	}
	specs, wrong := r.checkRows(rows, filepath.Dir(path))
	switch {
	case len(wrong) > 0:
		more := ""
		if len(wrong) > maxSaid {
			more = fmt.Sprintf("\nand %d more", len(wrong)-maxSaid)
			wrong = wrong[:maxSaid]
		}
		return nil, settings.Exit(settings.ExitUsage, "%s: %s%s; nothing was imported", path, strings.Join(wrong, "\n"), more)
	case len(specs) == 0:
		return nil, settings.Exit(settings.ExitUsage, "%s: there are no nodes in it", path)
	}
	return specs, nil
}

// readAll reads nodes to their end, or until the command is interrupted: stdin may be
// a person, or a pipe that nobody closes.
func (r specReader) readAll(in io.Reader) ([]byte, error) {
	text, err := typed(r.ctx, func() (string, error) {
		data, err := io.ReadAll(in)
		return string(data), err
	})
	if err != nil && !interrupted(r.ctx, err) {
		err = settings.Exit(settings.ExitUsage, "cannot read the nodes: %v", err)
	}
	return []byte(text), err
}

// openInput opens a file, or stdin.
func (r specReader) openInput(path string) (in io.Reader, close func(), err error) {
	if path == "-" {
		return r.in, func() {}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close() }, nil
}

// parseRows reads YAML, JSON or CSV, by the name of the file or by what is in it.
func parseRows(path string, data []byte) ([]specRow, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	start := bytes.TrimSpace(data)
	header, _, _ := bytes.Cut(start, []byte("\n"))
	switch ext := strings.ToLower(filepath.Ext(path)); {
	case ext == ".csv":
		return csvRows(data)
	case ext == ".json" || ext == ".jsonl":
		return jsonRows(data)
	case ext == ".yaml" || ext == ".yml":
		return yamlRows(data)
	case len(start) > 0 && (start[0] == '[' || start[0] == '{'):
		return jsonRows(data)
	case bytes.Contains(header, []byte(",")) && !bytes.Contains(header, []byte(":")):
		return csvRows(data)
	default:
		return yamlRows(data)
	}
}

func csvRows(data []byte) ([]specRow, error) {
	r := csv.NewReader(bytes.NewReader(data))
	r.TrimLeadingSpace = true
	r.Comment = '#'
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range header {
		header[i] = strings.ToLower(strings.TrimSpace(header[i]))
		if err := knownField(header[i]); err != nil {
			return nil, fmt.Errorf("line 1 names the columns: %w", err)
		}
		if slices.Contains(header[:i], header[i]) {
			return nil, fmt.Errorf("line 1 names the columns: %s is given twice", header[i])
		}
	}
	var rows []specRow
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := r.FieldPos(0)
		row := specRow{where: fmt.Sprintf("row %d (line %d)", len(rows)+1, line), fields: map[string]string{}, blanks: true}
		for i, text := range record {
			row.fields[header[i]] = text
		}
		rows = append(rows, row)
	}
}

// jsonRows reads arrays of objects, or one object after the other.
func jsonRows(data []byte) ([]specRow, error) {
	var rows []specRow
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		var value json.RawMessage
		err := dec.Decode(&value)
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read JSON near line %d: %w", 1+bytes.Count(data[:min(int(dec.InputOffset()), len(data))], []byte("\n")),
				err)
		}
		list := []json.RawMessage{value}
		if value[0] == '[' {
			if err := json.Unmarshal(value, &list); err != nil {
				return nil, err
			}
		}
		for _, one := range list {
			row := specRow{where: fmt.Sprintf("row %d", len(rows)+1), fields: map[string]string{}}
			var object map[string]*jsonText
			if err := json.Unmarshal(one, &object); err != nil {
				row.err = fmt.Errorf("want an object whose values are texts, or a list of texts for labels")
			} else if key := twiceIn(one); key != "" {
				row.err = fmt.Errorf("%s is given twice", key)
			}
			for key, text := range object {
				if text == nil {
					continue
				}
				if text.listed && !isList(key) {
					row.err = fmt.Errorf("%s: want a text", key)
				}
				row.fields[key] = text.text
			}
			rows = append(rows, row)
		}
	}
}

// labelsField may be a list, or a text in which commas part the labels.
const labelsField = "labels"

// agentsField is likewise a list.
const agentsField = "agents"

func isList(field string) bool { return field == labelsField || field == agentsField }

// jsonText is a text, or a list of texts, which commas join.
type jsonText struct {
	text   string
	listed bool
}

// UnmarshalJSON reads either.
func (t *jsonText) UnmarshalJSON(data []byte) error {
	var list []string
	if data[0] != '[' {
		return json.Unmarshal(data, &t.text)
	}
	err := json.Unmarshal(data, &list)
	t.text, t.listed = strings.Join(list, ","), true
	return err
}

// twiceIn names a key that is twice in an object of texts, "" if none does.
func twiceIn(object []byte) string {
	dec := json.NewDecoder(bytes.NewReader(object))
	seen := map[string]bool{}
	_, _ = dec.Token() // the brace
	for dec.More() {
		key, err := dec.Token()
		text, ok := key.(string)
		if err != nil || !ok {
			return ""
		}
		if seen[text] {
			return text
		}
		seen[text] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return ""
		}
	}
	return ""
}

func yamlRows(data []byte) ([]specRow, error) {
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New(strings.ReplaceAll(err.Error(), "\n", " "))
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, fmt.Errorf("line %d: a second YAML document: put all nodes in one list", more.Line)
	case !errors.Is(err, io.EOF):
		return nil, errors.New(strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.MappingNode && len(root.Content) == 2 && root.Content[0].Value == "nodes" {
		root = root.Content[1]
	}
	if root.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: want a list of nodes, each \"- name: ...\"", root.Line)
	}
	var rows []specRow
	for i, n := range root.Content {
		row := specRow{where: fmt.Sprintf("row %d (line %d)", i+1, n.Line), fields: map[string]string{}}
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		if n.Kind != yaml.MappingNode {
			row.err = fmt.Errorf("want \"name: ...\", \"rack: ...\"")
		}
		for j := 0; row.err == nil && j+1 < len(n.Content); j += 2 {
			key, value := n.Content[j].Value, n.Content[j+1]
			_, twice := row.fields[key]
			switch {
			case twice:
				row.err = fmt.Errorf("%s is given twice", key)
			case isList(key) && value.Kind == yaml.SequenceNode:
				var list []string
				if err := value.Decode(&list); err != nil {
					row.err = fmt.Errorf("%s: want a list of texts", key)
				}
				row.fields[key] = strings.Join(list, ",")
			case value.Kind != yaml.ScalarNode:
				row.err = fmt.Errorf("%s: want a text", key)
			case value.Tag == "!!null":
			default:
				row.fields[key] = value.Value
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func knownField(name string) error {
	for _, known := range specFields {
		if name == known {
			return nil
		}
	}
	if near := settings.Nearest(name, specFields); near != "" {
		return fmt.Errorf("unknown field %q (did you mean %s?)", name, near)
	}
	return fmt.Errorf("unknown field %q: want %s", name, strings.Join(specFields, ", "))
}

// checkRows turns rows into nodes and says of each bad one what is wrong with it.
// Files with passwords are looked for from dir on.
func (r specReader) checkRows(rows []specRow, dir string) (specs []api.NodeSpec, wrong []string) {
	seen, bmcs := map[string]string{}, new(power.Parts)
	for _, row := range rows {
		spec, kgFile, err := row.spec()
		if err == nil && seen[spec.Name] != "" {
			err = fmt.Errorf("node %s is in %s already", spec.Name, seen[spec.Name])
		}
		if file := row.fields["password_file"]; err == nil && file != "" {
			spec.Password, err = r.rowSecret(spec, "password", spec.Password, file, dir)
		}
		if err == nil && kgFile != "" {
			spec.KG, err = r.rowSecret(spec, "kg", spec.KG, kgFile, dir)
		}
		if err == nil {
			err = checkSecrets(spec)
		}
		part := ""
		if ep, wrong := power.ParseEndpoint(spec.BMC); wrong == nil && !ep.LinkLocal() {
			part = ep.Part()
		}
		if err == nil && part != "" {
			if other := bmcs.Take(part, fmt.Sprintf("node %s in %s", spec.Name, row.where)); other != "" {
				err = fmt.Errorf("node %s has the BMC of %s: if they are parts of it, say which (?target=0x30 of IPMI, /SYSTEM of Redfish)",
					spec.Name, other)
			}
		}
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %s", row.where, term.Clean(err.Error())))
			continue
		}
		seen[spec.Name] = row.where
		specs = append(specs, spec)
	}
	return specs, wrong
}

// rowSecret reads the file that a row names for a secret, given being what it says of
// the secret itself.
func (r specReader) rowSecret(n api.NodeSpec, field, given, file, dir string) (string, error) {
	switch {
	case given != "":
		return "", fmt.Errorf("node %s: %s and %s_file exclude each other", n.Name, field, field)
	case file == "-":
		return "", fmt.Errorf("node %s: %s_file: want the name of a file", n.Name, field)
	case !filepath.IsAbs(file):
		file = filepath.Join(dir, file)
	}
	what := map[string]string{"password": "the password", "kg": "K_g"}[field]
	secret, err := r.inFile(file, what)
	if err != nil {
		return "", fmt.Errorf("node %s: %w", n.Name, err)
	}
	return secret, nil
}

// spec is the row as a node, and the file to read its K_g from.
func (r specRow) spec() (spec api.NodeSpec, kgFile string, err error) {
	if r.err != nil {
		return spec, "", r.err
	}
	for key := range r.fields {
		if err := knownField(key); err != nil {
			return spec, "", err
		}
	}
	f := r.fields
	spec = api.NodeSpec{
		Name: f["name"], Rack: f["rack"], BMC: f["bmc"], Password: f["password"], KG: f["kg"], Credentials: f["credentials"], Domain: f["domain"],
		Protected: f["protected"],
		Status:    power.Status(f["status"]),
		Agents:    agentNames(f[agentsField]),
	}
	if spec.BMC, kgFile, err = power.CutKGFile(spec.BMC); err != nil {
		return spec, "", fmt.Errorf("node %s: %w", spec.Name, err)
	}
	if kgFile != "" && f["kg_file"] != "" {
		return spec, "", fmt.Errorf("node %s: K_g is given by kg_file and within bmc", spec.Name)
	}
	for _, field := range []string{"bmc", "password", "kg", "credentials", "domain", "status", agentsField} {
		if text, given := f[field]; given && text == "" && !r.blanks {
			spec.Clear = append(spec.Clear, field)
		}
	}
	// The labels of a row are all that the node has.
	if text, given := f[labelsField]; given && (text != "" || !r.blanks) {
		spec.Clear = append(spec.Clear, labelsField)
		for _, label := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
			spec.Labels = append(spec.Labels, strings.TrimSpace(label))
		}
	}
	return spec, cmp.Or(kgFile, f["kg_file"]), tidySpec(&spec)
}

// checkSecrets refuses what a BMC cannot have.
func checkSecrets(n api.NodeSpec) error {
	_, wrongKG := power.ParseKG(power.Secret(n.KG))
	if err := errors.Join(power.CheckPassword(power.Secret(n.Password), n.BMC), wrongKG); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nil
}

// tidySpec checks a node and writes its status as the table has it.
func tidySpec(n *api.NodeSpec) error {
	for _, f := range []*string{&n.Name, &n.Rack, &n.BMC, &n.Credentials, &n.Domain} {
		*f = strings.TrimSpace(*f)
	}
	if err := api.CheckName(n.Name); err != nil {
		return err
	}
	if n.Rack == "" {
		return fmt.Errorf("node %s: the rack is missing", n.Name)
	}
	if err := api.CheckName(n.Rack); err != nil {
		return fmt.Errorf("node %s: rack: %w", n.Name, err)
	}
	if err := api.CheckAgents(n.Agents); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	if n.Credentials != "" {
		if err := api.CheckName(n.Credentials); err != nil {
			return fmt.Errorf("node %s: credentials: %w", n.Name, err)
		}
	}
	if n.BMC != "" {
		ep, err := power.ParseEndpoint(n.BMC)
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		n.BMC = ep.String()
	}
	for _, label := range n.Labels {
		if err := noderange.CheckLabel(label); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	if n.Status == power.StatusNone {
		return nil
	}
	status, err := power.ParseStatus(strings.TrimSpace(string(n.Status)))
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	n.Status = status
	return nil
}

// writeCSV writes nodes as import reads them.
func writeCSV(w io.Writer, nodes []api.NodeSpec) error {
	out := csv.NewWriter(w)
	rows := [][]string{{"name", "rack", "bmc", "credentials", "domain", labelsField, "status", "protected", agentsField}}
	for _, n := range nodes {
		rows = append(rows, []string{
			n.Name, n.Rack, n.BMC, n.Credentials, n.Domain, strings.Join(n.Labels, ","), string(n.Status), n.Protected,
			strings.Join(n.Agents, ","),
		})
	}
	return out.WriteAll(rows)
}
