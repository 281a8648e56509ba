package agent

// damageMutations break the rules about logs that are damaged, old or gone. TestDamage
// must find each.
var damageMutations = []mutation{
	{
		"after damage a once-operation is sent again",
		[]edit{{"agent/doubt.go", "case doubt && x.op.Action.Once() && x.h.attempts == 0:", "case doubt && false:"}},
	},
	{"damage puts no operation in doubt", []edit{{
		"agent/doubt.go", "return append(entries, doubtEntries(live, found.LostBelow)...)",
		"return entries",
	}}},
	{"nothing is read first", []edit{{"agent/doubt.go", "\t\tcase d.Read:\n", "\t\tcase false:\n"}}},
	{"what was put back runs at once", []edit{
		{"agent/doubt.go", "case d.Compare && x.t.replayed:", "case false:"},
		{"agent/doubt.go", "return append(entries, doubtEntries(live, ^uint64(0))...)", "return entries"},
	}},
	{
		"a copy is taken for the files that were there",
		[]edit{{"agent/doubt.go", "if found.WentBack != \"\" || found.Copied != \"\" { //", "if found.WentBack != \"\" { //"}},
	},
	{
		"central is not told that records may be lost",
		[]edit{
			{"agent/doubt.go", "\t\td.Compare, d.Tell = true, true\n", "\t\td.Compare = true\n"},
			{"agent/doubt.go", "\t\td.Read, d.Tell = true, true\n", "\t\td.Read = true\n"},
		},
	},
	{"alarms end with the process", []edit{{
		"agent/alarms.go", "\t\tif raised, ok := s.now[a.Kind]; !ok || raised.Message == a.Message {",
		"\t\tif raised, ok := s.now[a.Kind]; ok && raised.Message == a.Message {",
	}}},
	{"an answer without its sending does not count", []edit{
		{"agent/task.go", "\tif h.pending != r.Command {\n", "\tif false {\n"},
		{"agent/doubt.go", "case doubt && x.op.Action.Once() && x.h.attempts == 0:", "case doubt && false:"},
	}},
	{"a cycle in doubt is cut again", []edit{{"agent/doubt.go", "if !doubt || state != power.On {", "if true || doubt {"}}},
	{"a segment that is too short is no damage", []edit{
		{"journal/segment.go", "if size < head.size && err == nil {", "if false {"},
		{"journal/mark.go", "case st.lsn < m.LSN:", "case false:"},
	}},
	{"the mark file is not compared", []edit{{"journal/mark.go", "\t\tm.against(j, st, rec)\n", "\t\t_ = m\n"}}},
	{
		"a bad end is cut without a word",
		[]edit{{"journal/mark.go", "case rec.TornBytes > 0 && m.Boot != \"\"", "case false && m.Boot != \"\""}},
	},
}
