package agent

import (
	"bytes"
	"encoding/json"

	"rackpower/central/api"
)

// Fields of records that were renamed are read by both names and written by the new one.

// unmarshalRenamed reads a JSON object, in which fields may have the names that they had
// before: old, new, old, new ...
func unmarshalRenamed(data []byte, into any, names ...string) error {
	var fields map[string]json.RawMessage
	for i := 0; i < len(names); i += 2 {
		old, now := names[i], names[i+1]
		if !bytes.Contains(data, []byte(`"`+old+`":`)) {
			continue // as nearly always
		}
		if fields == nil {
			if err := json.Unmarshal(data, &fields); err != nil {
				return err
			}
		}
		if value, ok := fields[old]; ok {
			fields[now] = value
			delete(fields, old)
		}
	}
	if fields != nil {
		var err error
		if data, err = json.Marshal(fields); err != nil {
			return err
		}
	}
	return json.Unmarshal(data, into)
}

// UnmarshalJSON reads records of before, too.
func (r *acceptedRecord) UnmarshalJSON(data []byte) error {
	type plain acceptedRecord
	return unmarshalRenamed(data, (*plain)(r), "says", "message")
}

// UnmarshalJSON reads records of before, too.
func (d *doneRecord) UnmarshalJSON(data []byte) error {
	type plain doneRecord
	return unmarshalRenamed(data, (*plain)(d), "says", "message")
}

// brakeRecord is a brake as the log has it.
type brakeRecord api.Brake

// UnmarshalJSON reads records of before, too.
func (b *brakeRecord) UnmarshalJSON(data []byte) error {
	type plain brakeRecord
	return unmarshalRenamed(data, (*plain)(b), "says", "message", "of", "total")
}

// UnmarshalJSON reads records of before, too.
func (t *trustRecord) UnmarshalJSON(data []byte) error {
	type plain trustRecord
	return unmarshalRenamed(data, (*plain)(t), "told", "reported")
}
