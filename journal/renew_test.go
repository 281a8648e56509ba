package journal_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"rackpower/journal"
	"rackpower/journal/faultfs"
)

func holding(t *testing.T, disk *faultfs.FS, text string) (files []string) {
	t.Helper()
	for _, name := range segments(t, disk) {
		if data, _ := disk.Data(dir + "/" + name); bytes.Contains(data, []byte(text)) {
			files = append(files, name)
		}
	}
	return files
}

func TestRenewLeavesNothingOfBefore(t *testing.T) {
	disk := faultfs.New()
	for range 3 { // each opening leaves a segment
		j := open(t, config(disk))
		appendAll(t, j, put("a", "of-before"), put("b", "stays"))
		mustClose(t, j)
	}
	j := open(t, config(disk))
	appendAll(t, j, put("a", "new"), put("c", "stays too"))
	var others sync.WaitGroup
	for i := range 20 {
		others.Go(func() {
			if _, err := j.Append(put(fmt.Sprint("k", i), "v")); err != nil {
				t.Error(err)
			}
		})
	}
	if err := j.Renew(); err != nil {
		t.Fatal(err)
	}
	others.Wait()
	if files := holding(t, disk, "of-before"); len(files) > 0 {
		t.Errorf("in %s", files)
	}
	if n := len(j.Live()); n != 23 {
		t.Errorf("%d records are live", n)
	}
	mustClose(t, j)
	j = open(t, config(disk.Restart()))
	if r := j.Recovery(); r.Damaged() || len(j.Live()) != 23 {
		t.Errorf("%+v, %d records are live", r, len(j.Live()))
	}
	mustClose(t, j)
	wantErr(t, j.Renew(), journal.ErrClosed)
}

func TestRenewGoesOnAfterAnError(t *testing.T) {
	disk := faultfs.New()
	j := open(t, config(disk))
	appendAll(t, j, put("a", "of-before"))
	appendAll(t, j, put("a", "new"))
	for _, op := range []faultfs.Op{faultfs.OpCreate, faultfs.OpWrite, faultfs.OpRemove} {
		disk.OnCall(func(c faultfs.Call) faultfs.Fault {
			if c.Op == op {
				return faultfs.Fault{Err: faultfs.ErrFull}
			}
			return faultfs.Fault{}
		})
		if err := j.Renew(); err == nil && len(holding(t, disk, "of-before")) > 0 {
			t.Errorf("%s fails: renewed, it says", op)
		}
	}
	disk.OnCall(nil)
	if err := j.Renew(); err != nil {
		t.Error(err)
	}
	if files := holding(t, disk, "of-before"); len(files) > 0 {
		t.Errorf("in %s", files)
	}
	wantLive(t, j, "a=new")
}
