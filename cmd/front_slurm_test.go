package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestSlurmSavesPower has Debian's slurmctld start the three programs, for nodes that nothing runs
// on: it resumes 20 nodes for a job, gives those up that do not come up, and suspends nodes.
func TestSlurmSavesPower(t *testing.T) {
	doors(t)
	for _, tool := range []string{"/usr/sbin/slurmctld", "/usr/bin/scontrol", "/usr/bin/sbatch"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("LEFT OUT: Slurm's power saving: %s is not there (apt-get install slurmctld slurm-client)", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("LEFT OUT: Slurm's power saving: needs root")
	}
	f := newHall20(t, 44)
	takes := bmcsim.Duration(200 * time.Millisecond)
	f.fault("", bmcsim.Fault{SoftOffTakes: &takes})
	conf := f.slurmConf()
	f.spawn("slurmctld", "/usr/sbin/slurmctld", "-D", "-f", conf)
	slurm := func(program string, args ...string) said {
		return f.stock("", "/usr/bin/env", append([]string{"SLURM_CONF=" + conf, "/usr/bin/" + program}, args...)...)
	}
	f.until(time.Minute, "slurmctld answers", func() bool { return strings.Contains(slurm("scontrol", "ping").out, "is UP") })

	// asked are the operations of a node that a program asked for.
	asked := func(node, reason string) (ops []api.Op) {
		t.Helper()
		found, err := f.site.client.QueryOps(t.Context(), api.QueryOps{Nodes: []string{node}})
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range found.Ops {
			if op.Reason == reason {
				ops = append(ops, op)
			}
		}
		return ops
	}
	all := func(what string, is func(v bmcsim.View) bool) {
		t.Helper()
		f.until(2*time.Minute, what, func() bool {
			for _, v := range f.views() {
				if healthy(v.Name) && !is(v) {
					return false
				}
			}
			return true
		})
	}
	before := f.now()
	script := filepath.Join(f.dir, "job.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ntrue\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := slurm("sbatch", "-N", "20", "-o", "/dev/null", script); got.exit != 0 {
		t.Fatalf("sbatch: %+v", got)
	}
	all("the job's nodes are on", func(v bmcsim.View) bool { return v.Power == power.On })
	all("those that nothing came up on are off again", func(v bmcsim.View) bool { return v.Power == power.Off })
	f.allAre(power.Off, before, 1, 1)
	if ops := asked("n00001", "Slurm ResumeFailProgram"); len(ops) == 0 || ops[0].Action != power.ActOff {
		t.Errorf("%+v", ops)
	}
	for _, node := range []string{doorHung, doorWrong} {
		if ops := asked(node, "Slurm ResumeProgram"); len(ops) == 0 || ops[0].Outcome == power.Succeeded {
			t.Errorf("%s: %+v", node, ops)
		}
	}
	f.mustRun("on", "n00001")
	if got := slurm("scontrol", "update", "nodename=n00001", "state=power_down_force"); got.exit != 0 {
		t.Errorf("scontrol: %+v", got)
	}
	f.until(2*time.Minute, "slurmctld suspends a node", func() bool {
		return len(asked("n00001", "Slurm SuspendProgram")) > 0 && f.bmc("n00001").Power == power.Off
	})
	f.terminate("slurmctld")
	f.suspends(asked)
}

// suspends tries what slurmctld does to nodes that ran: suspend, again the same, and resume meanwhile.
func (f hall20) suspends(asked func(node, reason string) []api.Op) {
	f.t.Helper()
	f.mustRun("on", doorHealthy)
	before := f.now()
	if got := f.stock("", f.cli, "front", "slurm", "suspend", doorHealthy); got.exit == 0 || !strings.Contains(got.errs, "--yes") {
		f.t.Errorf("18 of 20 nodes, unconfirmed: %+v", got)
	}
	for range 2 { // the second joins
		if got := f.stock("", f.cli, "front", "slurm", "suspend", doorHealthy, "--yes"); got.exit != 0 || got.out != "" {
			f.t.Errorf("suspend: %+v", got)
		}
	}
	f.mustRun("wait", doorHealthy, "--for", "off", "--timeout", "90s")
	f.allEnded(time.Minute)
	f.allAre(power.Off, before, 0, 1)
	for _, op := range asked("n00001", "Slurm SuspendProgram") {
		if op.Action != power.ActSoftOff || op.Outcome != power.Succeeded {
			f.t.Errorf("%+v", op)
		}
	}
	if got := f.stock("", f.cli, "front", "slurm", "resume", doorSlow); got.exit != 0 {
		f.t.Errorf("resume: %+v", got)
	}
	f.runs(doorSlow, power.ActOn)
	if got := f.stock("", f.cli, "front", "slurm", "resume-fail", doorSlow); got.exit != 0 {
		f.t.Errorf("resume-fail: %+v", got)
	}
	f.allEnded(time.Minute)
	if v := f.bmc(doorSlow); v.Power != power.Off {
		f.t.Errorf("%s: %+v", doorSlow, v)
	}
	if ops := asked(doorSlow, "Slurm ResumeProgram"); len(ops) == 0 || ops[len(ops)-1].Outcome != power.Superseded {
		f.t.Errorf("%+v", ops)
	}
	if got := f.stock("", f.cli, "front", "slurm", "resume", "n[00001,00099]"); got.exit == 0 || !strings.Contains(got.errs, "n00099") {
		f.t.Errorf("a node that is none: %+v", got)
	}
}

// slurmConf writes slurm.conf and the scripts that it names.
func (f hall20) slurmConf() string {
	f.t.Helper()
	host, err := os.Hostname()
	if err != nil {
		f.t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(f.dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			f.t.Fatal(err)
		}
		return path
	}
	program := func(name string) string {
		return write("slurm-"+name, fmt.Sprintf("#!/bin/sh\nexec %s front slurm %s --yes --central unix://%s --deadline 30s \"$1\" >> %s 2>&1\n",
			f.cli, name, f.socket(), filepath.Join(f.dir, "programs.log")), 0o700)
	}
	state := filepath.Join(f.dir, "slurm")
	if err := os.Mkdir(state, 0o700); err != nil {
		f.t.Fatal(err)
	}
	_, port, _ := strings.Cut(freePort(f.t), ":")
	host, _, _ = strings.Cut(host, ".")
	return write("slurm.conf", strings.NewReplacer("HOST", host, "PORT", port, "STATE", state).Replace(`
ClusterName=rackpower
SlurmctldHost=HOST(127.0.0.1)
SlurmctldPort=PORT
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation=STATE
SlurmctldPidFile=STATE/slurmctld.pid
ProctrackType=proctrack/linuxproc
MailProg=/bin/true
ReturnToService=1
SuspendTime=600
SuspendTimeout=5
ResumeTimeout=8
ResumeRate=0
SuspendRate=0
SuspendProgram=`+program("suspend")+`
ResumeProgram=`+program("resume")+`
ResumeFailProgram=`+program("resume-fail")+`
NodeName=n[00001-00020] NodeAddr=127.0.0.1 Port=1 State=CLOUD
PartitionName=all Nodes=ALL Default=YES State=UP
`), 0o600)
}
