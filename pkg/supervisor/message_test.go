package supervisor

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/ha"
)

func pair(t *testing.T) (*conn, *conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*conn
	for i, fd := range fds {
		if ends[i], err = newConn(fd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

// file is an open file with a text.
func file(t *testing.T, text string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "map")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMessagesArriveWholeWithTheirOwnDescriptors(t *testing.T) {
	ours, theirs := pair(t)
	sent := []message{
		{kind: kindTrack, body: []byte("{}")},
		{kind: kindMaps, files: []*os.File{file(t, "words"), file(t, "events"), file(t, "timers")}},
		{kind: kindReport, body: bytes.Repeat([]byte("1234567 "), 1<<18)}, // more than a socket holds
		{kind: kindMaps, body: []byte("more"), files: []*os.File{file(t, "others")}},
		{kind: kindStop},
	}
	failed := make(chan error, 1)
	go func() {
		for _, m := range sent {
			if err := ours.send(m); err != nil {
				failed <- err
				return
			}
		}
		failed <- ours.Close()
	}()
	for n, want := range sent {
		got, err := theirs.receive()
		if err != nil {
			t.Fatal(err)
		}
		if got.kind != want.kind || !bytes.Equal(got.body, want.body) || len(got.files) != len(want.files) {
			t.Fatalf("message %d: kind %d, %d bytes, %d files; want %d, %d, %d", n, got.kind, len(got.body), len(got.files), want.kind, len(want.body), len(want.files))
		}
		for i, f := range got.files {
			text, wanted := make([]byte, 20), make([]byte, 20)
			size, _ := f.ReadAt(text, 0)
			if length, _ := want.files[i].ReadAt(wanted, 0); string(text[:size]) != string(wanted[:length]) || size == 0 {
				t.Errorf("message %d: descriptor %d is that of %q, want %q", n, i, text[:size], wanted[:length])
			}
			if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("message %d: descriptor %d would be inherited by every script (%v)", n, i, err)
			}
			f.Close()
		}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if m, err := theirs.receive(); err == nil {
		t.Errorf("after the end: %v", m)
	}
}

func TestMessageThatIsCutShortOrTooLongIsAnError(t *testing.T) {
	for name, b := range map[string][]byte{
		"in its header": {0, 0},
		"in its body":   {0, 0, 0, 9, byte(kindTrack), '{'},
		"too long":      {255, 255, 255, 255, byte(kindTrack)},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			if _, err := ours.write(b, nil); err != nil {
				t.Fatal(err)
			}
			ours.Close()
			if m, err := theirs.receive(); err == nil {
				t.Errorf("received %+v", m)
			}
		})
	}
}

func TestNewestWishReplacesOneThatWasNotSentYet(t *testing.T) {
	o := newOutbox()
	for _, m := range []message{
		{kind: kindConfig, body: []byte("old")}, {kind: kindNotify, body: []byte("READY=1")}, {kind: kindTrack, body: []byte("t")},
		{kind: kindConfig, body: []byte("new")}, {kind: kindNotify, body: []byte("STATUS=x")},
	} {
		o.put(m)
	}
	o.close()
	o.put(message{kind: kindStop}) // too late
	var got []string
	for {
		m, ok, done := o.take()
		if !ok {
			if !done {
				t.Error("a closed outbox is not done")
			}
			break
		}
		got = append(got, string(m.body))
	}
	if diff := cmp.Diff([]string{"new", "READY=1", "t", "STATUS=x"}, got); diff != "" {
		t.Error(diff)
	}
}

// fill sets everything below v to something that is not zero.
func fill(v reflect.Value) {
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("fe80::1%eth0")))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("10.0.0.1/32")))
		return
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1, 2).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("text \"with\" <everything>\n")
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(3)
	case reflect.Float64:
		v.SetFloat(0.3)
	default:
		v.SetInt(-3)
	}
}

func TestReportIsEncodedAsJSON(t *testing.T) {
	for n := range 3 {
		r := ha.Report{Stopped: true, Denied: []string{"x"}, Instances: make([]ha.InstanceReport, n)}
		for i := range r.Instances {
			fill(reflect.ValueOf(&r.Instances[i]).Elem())
		}
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 10 * len(want)} {
			if got := encodeReport(r, size); !bytes.Equal(got, want) {
				t.Errorf("%d instances:\n%s\nwant\n%s", n, got, want)
			}
		}
	}
}

func TestNothingIsLostOnTheWayBetweenTheProcesses(t *testing.T) {
	for _, sent := range []any{&settings{}, &map[string]ha.Track{}, &ha.Report{}, &[]ha.ReadyPacket{}, &Process{}, &inheritance{}} {
		if i, ok := sent.(*inheritance); ok { // holds bodies as they are
			i.Config, i.Track, i.MapsBody = json.RawMessage("{}"), json.RawMessage("{}"), json.RawMessage("{}")
			i.Packets = []ha.ReadyPacket{{Packet: []byte{1}}}
		} else {
			fill(reflect.ValueOf(sent).Elem())
		}
		b, err := json.Marshal(sent)
		if err != nil {
			t.Fatal(err)
		}
		received := reflect.New(reflect.TypeOf(sent).Elem()).Interface()
		if err := json.Unmarshal(b, received); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(sent, received) {
			t.Errorf("%T: sent\n%+v\nreceived\n%+v", sent, sent, received)
		}
	}
}
