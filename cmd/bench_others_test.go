package cmd_test

import (
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	_ "rackpower/central/store" // which brings SQLite's driver
	"rackpower/power/bmcsim"
)

// What others do with the same BMCs.

// tool is the path of another program, "" if it is not installed.
func (b *bench) tool(name string) string {
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	return ""
}

// ranges are the hosts as ipmipower reads them: 127.77.0.[1-255]:PORT and so on.
func (f *fleet) ranges(size int) string {
	var parts []string
	for at, left := int(f.first[2])<<8+int(f.first[3]), size; left > 0; {
		n := min(left, 256-at&0xff)
		parts = append(parts, fmt.Sprintf("127.77.%d.[%d-%d]:%d", at>>8, at&0xff, at&0xff+n-1, f.port))
		at, left = at+n, left-n
	}
	return strings.Join(parts, ",")
}

// ipmipower is FreeIPMI's program for the first so many BMCs.
func (f *fleet) ipmipower(size int, check func(string) error, args ...string) baseline {
	path := f.b.tool("ipmipower")
	if path == "" {
		return baseline{name: "ipmipower is not installed (freeipmi-tools)"}
	}
	args = append([]string{
		"-D", "LAN_2_0", "-I", "17", "-u", bmcsim.DefaultUser, "-p", string(bmcsim.DefaultPassword), "-h", f.ranges(size),
	}, args...)
	return baseline{name: "ipmipower", run: func() figure {
		f.t.Helper()
		out, took := f.timed(path, args...)
		if err := check(out); err != nil {
			f.t.Fatalf("ipmipower: %v in\n%s", err, head(out))
		}
		return took
	}}
}

// ipmitool is the program for the first BMC.
func (f *fleet) ipmitool(check func(string) error, args ...string) baseline {
	path := f.b.tool("ipmitool")
	if path == "" {
		return baseline{name: "ipmitool is not installed"}
	}
	args = append([]string{
		"-I", "lanplus", "-C", "17", "-H", f.first.String(), "-p", fmt.Sprint(f.port), "-U", bmcsim.DefaultUser,
		"-P", string(bmcsim.DefaultPassword),
	}, args...)
	return baseline{name: "ipmitool", run: func() figure {
		f.t.Helper()
		out, took := f.timed(path, args...)
		if err := check(out); err != nil {
			f.t.Fatalf("ipmitool: %v in\n%s", err, head(out))
		}
		return took
	}}
}

// powerman is powermand with one ipmipower that it keeps running, asked by powerman -q.
func (f *fleet) powerman(times float64) baseline {
	f.t.Helper()
	daemon, client, ipmipower := f.b.tool("powermand"), f.b.tool("powerman"), f.b.tool("ipmipower")
	script := "/etc/powerman/ipmipower.dev"
	if _, err := os.Stat(script); err != nil || daemon == "" || client == "" || ipmipower == "" {
		return baseline{name: "powerman with ipmipower is not installed"}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	var text strings.Builder
	fmt.Fprintf(&text, "listen %q\ninclude %q\n", address, script)
	fmt.Fprintf(&text, "device \"d\" \"ipmipower\" \"%s -D LAN_2_0 -I 17 -u %s -p %s -h %s |&\"\n", ipmipower,
		bmcsim.DefaultUser, string(bmcsim.DefaultPassword), f.ranges(f.size))
	for i, host := range f.hosts() {
		fmt.Fprintf(&text, "node %q \"d\" %q\n", f.name(i), strings.Split(host, ":")[0])
	}
	config := filepath.Join(f.dir, "powerman.conf")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.spawn("powermand", daemon, "-c", config, "-f")
	answers := func() bool {
		out, _ := exec.Command(client, "-h", address, "-q").CombinedOutput()
		return strings.Contains(string(out), fmt.Sprintf("off:     n[00001-%05d]", f.size))
	}
	for tries := 0; !answers(); tries++ { // its ipmipower fails now and then, with many BMCs
		if tries == 10 {
			return baseline{name: "powermand does not answer"}
		}
		time.Sleep(time.Second)
	}
	return baseline{name: "powerman", times: times, run: func() figure {
		f.t.Helper()
		pids := append(children(f.pid("powermand")), f.pid("powermand")) // its ipmipower, too
		before := cpuOf(pids...)
		out, took := f.timed(client, "-h", address, "-q")
		if err := says(fmt.Sprintf("off:     n[00001-%05d]", f.size), 1)(out); err != nil {
			f.t.Fatalf("powerman: %v in\n%s", err, head(out))
		}
		took.cpu += cpuOf(pids...) - before
		return took
	}}
}

// children are the processes that a process has started.
func children(pid int) (pids []int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, word := range strings.Fields(string(text)) {
		if n, err := strconv.Atoi(word); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// recordSize is that of a typical record of an acceptance.
const recordSize = 300

// flushes writes so many records to a file and flushes them in groups of 64.
func (f *fleet) flushes(n int) baseline {
	return baseline{name: "fdatasync", run: func() figure {
		f.t.Helper()
		file, err := os.Create(filepath.Join(f.dir, "flushes"))
		if err != nil {
			f.t.Fatal(err)
		}
		defer file.Close()
		record := make([]byte, recordSize)
		began, cpu := time.Now(), ownCPU()
		for i := range n {
			_, err = file.Write(record)
			if err == nil && (i%64 == 63 || i == n-1) {
				err = unix.Fdatasync(int(file.Fd()))
			}
			if err != nil {
				f.t.Fatal(err)
			}
		}
		return figure{value: float64(time.Since(began)) / 1e6, cpu: ownCPU() - cpu}
	}}
}

// insertions has SQLite store so many rows in one transaction, as durably as central does.
func (f *fleet) insertions(n int) baseline {
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(f.dir, "plain.db")+"?_journal_mode=WAL&_synchronous=FULL")
	if err == nil {
		_, err = db.Exec("CREATE TABLE IF NOT EXISTS ops (id INTEGER PRIMARY KEY, body TEXT)")
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { db.Close() })
	return baseline{name: "SQLite", run: func() figure {
		f.t.Helper()
		began, cpu := time.Now(), ownCPU()
		tx, err := db.Begin()
		for i := 0; i < n && err == nil; i++ {
			_, err = tx.Exec("INSERT INTO ops (body) VALUES (?)", strings.Repeat("x", recordSize))
		}
		if err == nil {
			err = tx.Commit()
		}
		if err != nil {
			f.t.Fatal(err)
		}
		return figure{value: float64(time.Since(began)) / 1e6, cpu: ownCPU() - cpu}
	}}
}

// sealedSize is how long a status request and its answer are in a session of suite 17.
const sealedSize = 68

// rawUDP is one exchange with every BMC, all in flight, from one socket: Get Channel
// Authentication Capabilities, which needs no session, in a packet that is as long as a status
// request in a session. The answers are shorter, and neither side ciphers or signs: it is
// what the network and the BMCs' sockets cost, and no tool can be faster.
func (f *fleet) rawUDP() baseline {
	request := make([]byte, sealedSize)
	copy(request, []byte{6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0x20, 0x18, 0xc8, 0x81, 0, 0x38, 0x8e, 4, 0xb5})
	return baseline{name: "raw UDP", run: func() figure {
		f.t.Helper()
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			f.t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetReadBuffer(8 << 20)
		missing := map[[2]byte]*net.UDPAddr{}
		for i := range f.size {
			n := int(f.first[2])<<8 + int(f.first[3]) + i
			missing[[2]byte{byte(n >> 8), byte(n)}] = &net.UDPAddr{IP: net.IPv4(127, 77, byte(n>>8), byte(n)), Port: f.port}
		}
		began, cpu := time.Now(), ownCPU()
		answer := make([]byte, 512)
		for len(missing) > 0 {
			if time.Since(began) > 10*time.Second {
				f.t.Fatalf("%d BMCs did not answer", len(missing))
			}
			for _, to := range missing {
				if _, err := conn.WriteToUDP(request, to); err != nil {
					f.t.Fatal(err)
				}
			}
			_ = conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
			for len(missing) > 0 {
				_, from, err := conn.ReadFromUDPAddrPort(answer)
				if err != nil {
					break // some were lost: these are asked again
				}
				ip := from.Addr().As4()
				delete(missing, [2]byte{ip[2], ip[3]})
			}
		}
		return figure{value: float64(time.Since(began)) / 1e6, cpu: ownCPU() - cpu}
	}}
}

// ownCPU is the processor time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
