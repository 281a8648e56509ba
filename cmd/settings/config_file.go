package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// readFile reads a file of settings: one mapping from the names of flags to
// their values. All of it is checked, whichever command wants it.
func readFile(app *cli.App, path string) (map[string][]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, Exit(ExitUsage, "cannot read the settings: %v", err)
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, Exit(ExitUsage, "%s: %s", path, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	var more yaml.Node
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, Exit(ExitUsage, "%s:%d: a second document begins, and a file has one", path, more.Line)
	case !errors.Is(err, io.EOF):
		return nil, Exit(ExitUsage, "%s: %s", path, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, Exit(ExitUsage, "%s:%d: want lines of the form \"flag: value\"", path, root.Line)
	}
	values := map[string][]string{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		if _, twice := values[key.Value]; twice {
			return nil, Exit(ExitUsage, "%s:%d: %s is given twice", path, key.Line, key.Value)
		}
		list, wrong := settingOf(app, key.Value, node)
		if wrong != "" {
			return nil, Exit(ExitUsage, "%s:%d: %s%s", path, key.Line, key.Value, wrong)
		}
		values[key.Value] = list
	}
	return values, nil
}

// settingOf reads one value; wrong says what is the matter with it.
func settingOf(app *cli.App, key string, node *yaml.Node) (list []string, wrong string) {
	var flags []cli.Flag
	var known []string
	once := false // a flag of that name is said for one command
	for title, c := range leaves(app) {
		for _, f := range c.Flags {
			switch name := NameOf(f); {
			case name == configFlag:
			case envOf(app, title, name) == "":
				once = once || name == key
			default:
				known = append(known, name)
				if name == key {
					flags = append(flags, f)
				}
			}
		}
	}
	if len(flags) == 0 && once {
		return nil, fmt.Sprintf(": no key: %s is given on the command line, for one command", dashed(key))
	}
	if len(flags) == 0 {
		slices.Sort(known)
		return nil, ": unknown key" + didYouMean(key, known, "")
	}
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	nodes := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode && repeatable(flags[0]) {
		nodes = node.Content
	}
	for _, n := range nodes {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return nil, fmt.Sprintf(": want %s", kindOf(flags[0]))
		}
		if wrong := checkAny(flags, n.Value); wrong != "" {
			return nil, ": " + wrong
		}
		list = append(list, n.Value)
	}
	return list, ""
}

// checkAny says what is wrong with a value for all flags of one name. What suits one
// of them may be meant for it; the command that takes the value checks its own.
func checkAny(flags []cli.Flag, text string) (wrong string) {
	for _, f := range flags {
		if wrong = check(f, text); wrong == "" {
			return ""
		}
	}
	return wrong
}

// kindOf says in words what a flag takes.
func kindOf(f cli.Flag) string {
	switch f.(type) {
	case *cli.BoolFlag:
		return "true or false"
	case *cli.IntFlag, *cli.Int64Flag, *cli.UintFlag, *cli.Uint64Flag, *cli.Float64Flag:
		return "a number"
	case *cli.DurationFlag:
		return "a duration such as 90s, 5m or 1h30m"
	case *cli.StringSliceFlag:
		return "a list of texts"
	default:
		return "a text"
	}
}
