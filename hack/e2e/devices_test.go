package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// A device of these shows a character device, a file of the host and variables.
func describedDevices(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	host := write(t, map[string]string{"lib": "driver\n"})
	text := `
cdiVersion: "0.6.0"
kind: "a.com/gpu"
annotations:
  org.mobyproject.buildkit.device.class: compute
containerEdits:
  env: ["GPU=1"]
devices:
- name: one
  containerEdits:
    env: ["ONE=1"]
    deviceNodes:
    - path: /dev/gpu1
      hostPath: /dev/zero
    mounts:
    - hostPath: ` + filepath.Join(host, "lib") + `
      containerPath: /usr/lib/vendor/driver
      options: ["ro", "bind"]
- name: two
  containerEdits:
    env: ["TWO=1"]
---
`
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(strings.TrimSuffix(text, "---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	free := strings.NewReplacer("a.com/gpu", "b.com/nic", "device.class: compute", "device.autoallow: true", "one", "eth", "/dev/gpu1", "/dev/nic").Replace(text)
	if err := os.WriteFile(filepath.Join(dir, "b.yaml"), []byte(strings.TrimSuffix(free, "---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// deviceVariables is a command that says which devices a step has.
const deviceVariables = "env | grep -e '^ONE=' -e '^TWO=' -e '^GPU=' | sort | tr '\\n' ' ' > /env"

func TestDevicesOfSteps(t *testing.T) {
	d := startDaemon(t, "--cdi-spec-dir", describedDevices(t))
	bb := busyboxContext(t)
	d.expect(`RUN --device=a.com/gpu=one,required head -c 3 /dev/gpu1 | wc -c > /zeros && cp /usr/lib/vendor/driver /driver && `+deviceVariables+"\n",
		map[string]string{"zeros": "3", "driver": "driver", "env": "GPU=1 ONE=1"}, bb, "--allow", "device")
	// Where it was mounted nothing is left, and other steps do not have it.
	d.expect("RUN --device=a.com/gpu=one,required true\nRUN { test ! -e /usr/lib && test ! -e /dev/gpu1 && echo none; } > /left; "+deviceVariables+"; true\n",
		map[string]string{"left": "none", "env": ""}, bb, "--allow", "device")
}

func TestDevicesThatMayBeUsed(t *testing.T) {
	d := startDaemon(t, "--cdi-spec-dir", describedDevices(t))
	bb := busyboxContext(t)
	step := func(name string) string { return "RUN --device=" + name + ",required " + deviceVariables + "\n" }
	for _, c := range []struct{ device, allow, want string }{
		{"a.com/gpu=two", "device=a.com/gpu=two", "GPU=1 TWO=1"},
		{"a.com/gpu=two", "device=a.com/gpu=*", "GPU=1 TWO=1"},
		{"a.com/gpu", "device=a.com/gpu", "GPU=1 ONE=1"},
		{"a.com/gpu=*", "device=a.com/gpu=*", "GPU=1 ONE=1 TWO=1"},
		{"compute", "device=compute", "GPU=1 ONE=1 TWO=1"},
		{"mine.com/x=y", "device=a.com/gpu=two,alias=mine.com/x=y", "GPU=1 TWO=1"},
		{"b.com/nic=two", "network.host", "GPU=1 TWO=1"},
	} {
		args := []string{bb}
		if c.allow != "network.host" {
			args = append(args, "--allow", c.allow)
		}
		d.expect(step(c.device), map[string]string{"env": c.want}, args...)
	}
	for _, allow := range []string{"", "device=a.com/gpu=one", "device=compute2", "device=a.com/gpu=one,alias=a.com/gpu=three"} {
		args := []string{bb}
		if allow != "" {
			args = append(args, "--allow", allow)
		}
		d.fail(step("a.com/gpu=two"), []string{"device a.com/gpu=two is requested by the build but not allowed"}, args...)
	}
	d.fail(step("a.com/gpu=*"), []string{"devices a.com/gpu=one, a.com/gpu=two are requested by the build but not allowed"}, bb)
	d.fail(step("a.com/gpu=two"), []string{"unknown device config key"}, bb, "--allow", "device=x,y=z")
}

func TestDevicesThatAreNotThere(t *testing.T) {
	d := startDaemon(t, "--cdi-spec-dir", describedDevices(t))
	bb := busyboxContext(t)
	d.fail("RUN --device=a.com/gpu=three,required true\n",
		[]string{`required device "a.com/gpu=three" is not registered`, "this host has a.com/gpu=one, a.com/gpu=two"}, bb, "--allow", "device")
	r := d.expect("RUN --device=c.com/x=y echo without > /x\n", map[string]string{"x": "without"}, bb)
	if !strings.Contains(r.errOut, `optional device "c.com/x=y" is not on this host`) {
		t.Errorf("nothing tells of the device that is left out:\n%s", r.errOut)
	}
}

func TestDevicesOfTheWorker(t *testing.T) {
	list := startDaemon(t, "--cdi-spec-dir", describedDevices(t)).worker().CDIDevices
	if len(list) != 4 || list[0].Name != "a.com/gpu=one" || list[0].AutoAllow || list[0].Annotations["org.mobyproject.buildkit.device.class"] != "compute" ||
		list[2].Name != "b.com/nic=eth" || !list[2].AutoAllow {
		t.Errorf("the worker has %+v", list)
	}
}

func TestDevicesRefusedWithTheirCode(t *testing.T) {
	d := startDaemon(t, "--cdi-spec-dir", describedDevices(t))
	def, err := llb.Scratch().Run(llb.Args([]string{"x"}), llb.AddCDIDevice(llb.CDIDeviceName("a.com/gpu"))).Root().Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.driver().Solve(t.Context(), def, bkclient.SolveOpt{}, nil)
	if grpcerrors.Code(err) != codes.PermissionDenied {
		t.Errorf("a device that was not granted: code %s: %v", grpcerrors.Code(err), err)
	}
}

func TestDevicesSwitchedOff(t *testing.T) {
	d := startDaemon(t, "--cdi-disabled", "--cdi-spec-dir", describedDevices(t))
	bb := busyboxContext(t)
	d.fail("RUN --device=b.com/nic=two,required true\n", []string{"CDI device support is disabled", `"b.com/nic=two"`}, bb)
	d.fail("RUN true\n", []string{"granting entitlement device is not allowed"}, bb, "--allow", "device")
	d.expect("RUN --device=b.com/nic=two echo $TWO without > /x\n", map[string]string{"x": "without"}, bb)
	if list := d.worker().CDIDevices; len(list) != 0 {
		t.Errorf("the worker has %+v", list)
	}
}
